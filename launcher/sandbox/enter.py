"""A further command in a running container: into all its namespaces, with the rights of its own command.

    exec (the caller)         supervisor              helper                    the command
       | ---- exec + fds -----> |                        |
       |                        | ---- fork -----------> |
       |       enters the user namespace that owns the container's, then all others of process 1 by its pidfd
       |                        |                        | ---- fork ------------> |  in the pid namespace
       |                        | <--- its pid (a pipe) - |  ends                   |
       | <--- terminal + fd ------------------------------------------------------ |  (only with -t)
       | <--- end of file -------------------------------------------------------- |  exec
       | <--- finished {status} - |  has waited for it

The supervisor is the parent: a pid namespace does not end before all of its processes have been waited for, and who
asked may be stopped or gone.
"""

from __future__ import annotations

import os

from launcher.sandbox import command, init, syscalls, terminal
from launcher.sandbox.protocol import Channel, PeerGone
from launcher.sandbox.spec import Spec

_OTHERS = (
    syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWPID
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWUTS
    | syscalls.CLONE_NEWCGROUP
)  # fmt: skip


def run(channel: Channel, told: int, process: int, pid: int, spec: Spec) -> int:
    """The helper, a fork of the supervisor: its exit status. `process` is a pidfd of process 1, `pid` its number.

    The command's pid is written to `told`, in ten characters; why it could not be started is said on `channel`.
    """
    try:
        mounts = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        # The one that owns the mount namespace: with -u in a single-id container process 1 is in another, nested one.
        syscalls.setns(syscalls.owner_of(mounts), syscalls.CLONE_NEWUSER)
        syscalls.setns(process, _OTHERS)
    except OSError as error:
        channel.fail(f"cannot enter the container: {error.strerror}")
        return 125
    init.import_nothing_more()  # the root is the container's now
    command_pid = os.fork()
    if command_pid == 0:
        return _run(channel, spec)
    os.write(told, b"%10d" % command_pid)
    return 0


def _run(channel: Channel, spec: Spec) -> int:
    """The command's process. Returns only when it could not be started; the reason has been sent by then."""
    try:
        os.setsid()
        os.umask(0o022)
        if spec.terminal:
            master = terminal.adopt(spec.terminal_size, console=False)
            channel.send("terminal", (master,))
            os.close(master)
        init.standard_streams(spec)
        syscalls.close_on_exec_from(3)
        environment = init.become(spec)
        init.reset_signals()
        command.execute(spec.argv, environment)
    except PeerGone:
        return 125
    except Exception as error:  # noqa: BLE001 whoever asked tells it
        channel.give_up("cannot start the command in the container", error)
    return 125
