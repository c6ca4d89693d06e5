"""Making processes in user namespaces, and saying why when that is not allowed."""

from __future__ import annotations

import os
from collections.abc import Callable

from launcher.errors import UfsError, complain, describe
from launcher.sandbox import idmap, syscalls
from launcher.sandbox.protocol import Channel, PeerGone

# What a distribution may have set so that an ordinary user gets no user namespace: sysctl, the value that
# forbids, how to allow it again.
_SWITCHES = (
    ("user.max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
    ("kernel.unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    (
        "kernel.apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for ufs-run",
    ),
)


def fork(body: Callable[[], int]) -> int:
    """Run `body` in a child, which ends with what it returns; the pid for the caller.

    The child never returns into the caller's stack, runs no exit handlers and flushes no inherited buffers. What `body`
    raises in spite of all is one line on standard error and ends it with status 125.
    """
    pid = os.fork()
    if pid:
        return pid
    status = 125
    try:
        status = body()
    except Exception as error:  # noqa: BLE001 nobody is there to catch it
        complain(describe(error))
    finally:
        os._exit(status)


def fork_mapped(
    ids: idmap.IdMap,
    name: str,
    body: Callable[[Channel], int],
    *,
    meanwhile: Callable[[], None] = lambda: None,
    abandon: Callable[[], None] = lambda: None,
) -> tuple[int, Channel]:
    """Run `body` as root of a new user and mount namespace with the map `ids`: (pid, channel to it).

    Nothing that the child mounts reaches the host. Raises `UfsError` when the namespace cannot be had. `meanwhile` is
    called in the child while this process writes the map, `abandon` when it dies before it has.
    """
    ours, theirs = Channel.pair("launcher", name)

    def child() -> int:
        ours.close()
        try:
            enter_user_namespace(theirs, meanwhile)
        except PeerGone:
            abandon()
            return 125
        except Exception as error:  # noqa: BLE001 the launcher tells it
            theirs.give_up(f"cannot start the {name}", error)
            return 125
        return body(theirs)

    pid = fork(child)
    theirs.close()
    try:
        ours.expect("unshared")
        idmap.write(ids, pid)
        ours.send("mapped")
    except UfsError:
        # Its end of file makes the child end; it is waited for so that no zombie is left.
        ours.close()
        os.waitpid(pid, 0)
        raise
    return pid, ours


def enter_user_namespace(channel: Channel, meanwhile: Callable[[], None]) -> None:
    """The child's half of `fork_mapped`: unshare, wait for the map, become root in it."""
    try:
        syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS)
    except OSError as error:
        raise refused(error) from error
    channel.send("unshared")
    meanwhile()
    channel.expect("mapped")
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    try:
        syscalls.make_private()
    except OSError as error:
        # Ubuntu lets the namespace be made and takes the capabilities in it away.
        raise refused(error) from error


def refused(error: OSError) -> UfsError:
    """The sentence for a user namespace that the kernel did not give."""
    for name, value, remedy in _SWITCHES:
        try:
            with open("/proc/sys/" + name.replace(".", "/")) as setting:
                if setting.read().strip() != value:
                    continue
        except FileNotFoundError:  # this kernel has no such switch
            continue
        return UfsError(f"user namespaces are switched off here ({name}={value}); as root: {remedy}", 125)
    if _inside_ours():
        return UfsError("this is inside a container of ufs-run: start that one with --nested", 125)
    return UfsError(
        f"cannot make a user namespace: {error.strerror}; inside another container it must allow them "
        "(for Docker: --security-opt seccomp=unconfined)",
        125,
    )


def _inside_ours() -> bool:
    """Whether the root is a union of ours."""
    with open("/proc/self/mountinfo", errors="surrogateescape") as mounts:
        return any(line.split()[4] == "/" and " - fuse.ufs " in line for line in mounts)
