"""Process 1 of a container, from its first instruction to the exec of the command."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import stat
import sys
from collections.abc import Callable
from importlib.machinery import BuiltinImporter, FrozenImporter

import prctl

from launcher.errors import UfsError
from launcher.sandbox import capabilities, command, rootfs, seccomp, syscalls, terminal, user
from launcher.sandbox.protocol import Channel, PeerGone
from launcher.sandbox.spec import Spec

_NAMESPACES = (
    syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWPID
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWUTS
    | syscalls.CLONE_NEWCGROUP
)


def start(channel: Channel, server: Channel, spec: Spec, user_namespace: int) -> int:
    """The helper between launcher and init: enters and makes the namespaces, forks init, ends.

    Only a child of the process that unshared a pid namespace is in it. The launcher, a subreaper, becomes the
    parent of init when this process ends. The return value is this process's exit status.
    """
    try:
        syscalls.setns(user_namespace, syscalls.CLONE_NEWUSER)
        syscalls.unshare(_NAMESPACES)
    except Exception as error:  # noqa: BLE001 the launcher tells it
        channel.give_up("cannot make the container's namespaces", error)
        return 125
    os.close(user_namespace)
    pid = os.fork()
    if pid == 0:
        return run(channel, server, spec)
    try:
        channel.send("started", pid=pid)
    except PeerGone:
        return 125  # init sees the launcher's end on the same channel, and ends too
    return 0


def run(channel: Channel, server: Channel, spec: Spec) -> int:
    """Init itself. Returns only when the command could not be started; the reason has been sent by then."""
    try:
        _run(channel, server, spec)
    except PeerGone:
        return 125
    except Exception as error:  # noqa: BLE001 the launcher tells it
        channel.give_up("cannot set up the container", error)
    return 125


def _run(channel: Channel, server: Channel, spec: Spec) -> None:
    channel.expect("go")
    _die_with_launcher(channel)
    os.setsid()
    os.umask(0o022)
    received = rootfs.receiving(spec)
    syscalls.make_private()
    parts = rootfs.Parts(spec, received)
    mount_root(server, spec.directory)
    import_nothing_more()
    rootfs.pivot(spec.directory)
    created = rootfs.furnish(spec, parts)
    socket.sethostname(spec.hostname)
    if spec.terminal:
        master = terminal.adopt(spec.terminal_size, console=True)
        channel.send("terminal", (master,))
        os.close(master)
    standard_streams(spec)
    # What is open from now on is either a standard stream or ends with exec: no descriptor of the host is left to
    # be reached by name, not even one that the launcher's caller had left open (CVE-2024-21626).
    syscalls.close_on_exec_from(3)
    environment = become(spec, lambda: _have_binds_answered(channel) if spec.low_ports else None)
    channel.send("prepared", created=created)
    _die_with_launcher(channel)
    if spec.init:
        _fork_under_init(channel, spec.terminal)
    reset_signals()
    command.execute(spec.argv, environment)


def import_nothing_more() -> None:
    """After the change of root the places where Python looks for modules are the image's: what it has there would be
    run with more rights than the command gets. All that is needed is imported; built-in modules remain.
    """
    # What else looks for modules (`site` by way of bin/ufs, other people's import hooks) goes, too.
    sys.meta_path[:] = [BuiltinImporter, FrozenImporter]
    sys.path.clear()
    sys.path_hooks.clear()
    sys.path_importer_cache.clear()


def _die_with_launcher(channel: Channel) -> None:
    """Be killed when the launcher ends. Set again after each change of ids, which clears it (prctl(2)).

    A parent in another pid namespace has no pid here, so its end before the call shows on the channel only.
    """
    prctl.set_pdeathsig(signal.SIGKILL)
    watch = select.poll()
    watch.register(channel, select.POLLIN | select.POLLHUP)
    if watch.poll(0):
        raise PeerGone("the launcher is gone", 125)


def mount_root(server: Channel, directory: str) -> None:
    """Mount FUSE over the container's `directory`, in this namespace only, and hand the device to the server."""
    from unionfs.fuse import mount

    device = mount.open_device()
    try:
        mount.mount(device, directory)
    except PermissionError as error:
        raise UfsError(f"cannot mount FUSE in a user namespace ({error.strerror}); Linux 4.18 or newer can, "
                       "unless a security module forbids it", 125) from error  # fmt: skip
    server.send("device", (device,))
    # The server's must be the only copy: when it ends, every request that waits here ends too.
    os.close(device)
    server.close()


def standard_streams(spec: Spec) -> None:
    """Without a terminal: what the supervisor reads and writes, or the caller's own."""
    nothing = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for number, source in enumerate(spec.streams if not spec.terminal else ()):
        if source != number:
            os.dup2(source if source >= 0 else nothing, number)
    os.close(nothing)


def _own_streams(spec: Spec, uid: int) -> None:
    """Give the container's terminal, or pipes of ours, to the command's user, who may open them by name.

    They are ours: a user other than root gets no other pipe (`launcher.supervisor.streams`).
    """
    for number in (0, 1, 2):
        if spec.terminal or stat.S_ISFIFO(os.fstat(number).st_mode):
            os.fchown(number, uid, -1)


def become(spec: Spec, further_filters: Callable[[], None] = lambda: None) -> dict[str, str]:
    """Working directory, ids, capabilities, filters; the environment with HOME."""
    who = user.from_container(spec.user)
    command.enter_directory(spec.working_directory)
    if spec.ids.single and (who.uid, who.gid) != (0, 0):
        user.enter_single(who)
    # Others of the container may look into a process that can do no more than they, which is so until exec from here
    # on: not into this one, whose program is the host's (CVE-2016-9962, CVE-2019-5736).
    prctl.set_dumpable(0)
    if who.uid and not spec.ids.single and spec.ids.has_uid(who.uid):
        _own_streams(spec, who.uid)
    capabilities.limit_bounding(spec.capabilities)
    # Without no_new_privs a filter takes CAP_SYS_ADMIN (seccomp(2)), so it comes before that goes by `limit_held`.
    prctl.set_keepcaps(True)
    user.become(who, spec.ids)
    if not spec.new_privileges:
        prctl.set_no_new_privs(1)
    capabilities.raise_held(capabilities.SYS_ADMIN)
    syscalls.install_seccomp(seccomp.program(spec.capabilities, pretend=spec.ids.single, nested=spec.nested))
    further_filters()
    capabilities.limit_held(spec.capabilities if who.uid == 0 else frozenset())
    return {"HOME": who.home, **spec.environment}


def _have_binds_answered(channel: Channel) -> None:
    try:
        listener = syscalls.install_seccomp_listener(seccomp.binds())
    except OSError as error:
        if error.errno != errno.EBUSY:  # inside another container of root that does it
            raise
        return
    channel.send("binds", (listener,))
    os.close(listener)


def reset_signals() -> None:
    """The command starts with every signal at its default and none blocked, whatever the caller had."""
    for number in signal.valid_signals():
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _fork_under_init(channel: Channel, has_terminal: bool) -> None:
    """With --init: return in a child, and stay behind as the process 1 that forwards signals and reaps."""
    every = signal.valid_signals()
    signal.pthread_sigmask(signal.SIG_BLOCK, every)
    child = os.fork()
    if child == 0:
        # A group of its own, or a terminal's Ctrl-C would reach it twice: directly and forwarded.
        os.setpgid(0, 0)
        if has_terminal:
            os.tcsetpgrp(0, os.getpid())
        return
    channel.close()
    prctl.set_proctitle("ufs-init")
    prctl.set_dumpable(1)  # or nobody could enter the namespaces by it: it runs for as long as there is anybody inside
    os.closerange(0, 3)
    while True:
        number = signal.sigwait(every)
        if number in (signal.SIGINT, signal.SIGQUIT):
            os.killpg(child, number)  # as a terminal does
            continue
        if number != signal.SIGCHLD:
            os.kill(child, number)
            continue
        _reap(child)


def _reap(child: int) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)
