"""A further command in a running container: into all its namespaces, with the rights of its own command.

    exec (the caller)            helper                      the command
       | ---- fork ---------------> |                            |
       |   enters the user namespace that owns the container's, then all others of process 1 by its pidfd
       |                            | ---- fork ---------------> |  in the pid namespace
       | <--- started {pid} -------- |  ends                      |
       | ---- go --------------------------------------------->  |
       | <--- terminal + fd ------------------------------------ |  (only with -t)
       | <--- end of file -------------------------------------- |  exec

The supervisor has no part in it. The kernel ends the command with the container's pid namespace.
"""

from __future__ import annotations

import os

import prctl

from launcher.errors import UfsError
from launcher.sandbox import command, init, namespaces, syscalls, terminal
from launcher.sandbox.protocol import Channel, PeerGone
from launcher.sandbox.spec import Spec

_OTHERS = (
    syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWPID
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWUTS
    | syscalls.CLONE_NEWCGROUP
)  # fmt: skip


def start(process: int, pid: int, spec: Spec) -> tuple[int, Channel]:
    """Make the process for a command: (its pid, the channel on which it waits for "go").

    `process` is a pidfd of the container's process 1, `pid` its number. This process must have one thread.
    """
    mounts = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    owner = syscalls.owner_of(mounts)
    os.close(mounts)
    prctl.set_child_subreaper(1)
    ours, theirs = Channel.pair("command", "command in the container")

    def helper() -> int:
        ours.close()
        return _enter(theirs, owner, process, spec)

    helper_pid = namespaces.fork(helper)
    os.close(owner)
    theirs.close()
    try:
        started = ours.expect("started")
    finally:
        os.waitpid(helper_pid, 0)
    return int(started.fields["pid"]), ours


def _enter(channel: Channel, owner: int, process: int, spec: Spec) -> int:
    try:
        # The one that owns the mount namespace: with -u in a single-id container process 1 is in another, nested one.
        syscalls.setns(owner, syscalls.CLONE_NEWUSER)
        syscalls.setns(process, _OTHERS)
    except OSError as error:
        channel.fail(f"cannot enter the container: {error.strerror}")
        return 125
    init.import_nothing_more()  # the root is the container's now
    pid = os.fork()
    if pid == 0:
        return _run(channel, spec)
    try:
        channel.send("started", pid=pid)
    except PeerGone:
        return 125
    return 0


def _run(channel: Channel, spec: Spec) -> int:
    """The command's process. Returns only when it could not be started; the reason has been sent by then."""
    try:
        channel.expect("go")
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
    except UfsError as error:
        channel.fail(str(error), error.status if error.status != 1 else 125)
    except OSError as error:
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        channel.fail(f"cannot start the command in the container: {where}{error.strerror or error}")
    return 125
