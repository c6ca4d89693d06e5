"""Getting /dev/fuse mounted: by mount(2) where this process may, else by the setuid helper fusermount3."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from typing import TYPE_CHECKING

from unionfs import syscalls

if TYPE_CHECKING:  # for fusermount3 only, which a container does not need
    import socket

DEVICE = "/dev/fuse"


class MountError(OSError):
    """Mounting is not possible; the message says what to do."""

    def __str__(self) -> str:
        return str(self.strerror)


def open_device() -> int:
    """A descriptor of /dev/fuse, to be opened in the user namespace that will mount it (fuse_fill_super())."""
    try:
        return os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise MountError(error.errno, f"there is no {DEVICE}: load the kernel's fuse module (modprobe fuse)") from error
    except PermissionError as error:
        message = f"no permission on {DEVICE}: as root, chmod 0666 {DEVICE}, which is what distributions ship"
        raise MountError(error.errno, message) from error
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.ENXIO):
            message = f"{DEVICE} has no driver: load the kernel's fuse module (modprobe fuse)"
            raise MountError(error.errno, message) from error
        raise


def mount(
    fd: int,
    target: str | bytes,
    *,
    source: str = "ufs",
    subtype: str = "ufs",
    read_only: bool = False,
    allow_other: bool = True,
    default_permissions: bool = True,
    flags: int = 0,
) -> None:
    """Mount the file system that will be served on `fd` by mount(2).

    Needs CAP_SYS_ADMIN in the user namespace in which `fd` was opened. `flags` are further MS_ flags. The type that
    shows is ``fuse.SUBTYPE``.
    """
    rootmode = stat.S_IFDIR | 0o755
    options = [f"fd={fd}", f"rootmode={rootmode:o}", f"user_id={os.geteuid()}", f"group_id={os.getegid()}"]
    options += ["allow_other"] * allow_other + ["default_permissions"] * default_permissions
    flags |= syscalls.MS_RDONLY if read_only else 0
    data = ",".join(options).encode()
    syscalls.mount(source.encode(), os.fsencode(target), os.fsencode(f"fuse.{subtype}"), flags, data)


def make_private(target: str | bytes) -> None:
    """Keep what is mounted and unmounted there from other mount namespaces (mount_namespaces(7))."""
    syscalls.mount(b"none", os.fsencode(target), b"", syscalls.MS_PRIVATE, b"")


def fusermount(target: str | bytes, options: list[str], *, source: str = "ufs", subtype: str = "ufs") -> int:
    """Mount with fusermount3 and return the descriptor to serve (mount.fuse3(8))."""
    import socket

    helper = _helper()
    names = [f"{name}={_escaped(value)}" for name, value in (("fsname", source), ("subtype", subtype))]
    os.close(open_device())  # the helper opens it with this user's rights, too, but does not say what to do
    ours, theirs = socket.socketpair()
    with ours, theirs:
        environment = {**os.environ, "_FUSE_COMMFD": str(theirs.fileno())}
        command = [helper, "-o", ",".join([*names, *options]), "--", os.fsdecode(target)]
        os.set_inheritable(theirs.fileno(), True)
        said = _run(command, environment)
        theirs.close()
        fd = _receive(ours)
    if fd < 0:
        raise MountError(errno.EPERM, f"cannot mount {os.fsdecode(target)}: {said or 'fusermount3 does not say why'}")
    return fd


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(",", "\\,")


def _run(command: list[str], environment: Mapping[str, str]) -> str:
    """Run the helper to its end; what it said on stderr, as one line. Its status says no more than that."""
    reading, writing = os.pipe()
    # With no signal blocked, whatever this process holds back while it mounts.
    actions = [(os.POSIX_SPAWN_DUP2, writing, 2)]
    pid = os.posix_spawn(command[0], command, environment, file_actions=actions, setsigmask=[])
    os.close(writing)
    with os.fdopen(reading, errors="replace") as stream:
        said = " ".join(stream.read().split())
    os.waitpid(pid, 0)
    return said.removeprefix("/usr/bin/").removeprefix("fusermount3: ")


def _receive(channel: socket.socket) -> int:
    import array
    import socket

    size = array.array("i").itemsize
    _, ancillary, _, _ = channel.recvmsg(1, socket.CMSG_SPACE(size))
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fd = array.array("i", data[:size])[0]
            os.set_inheritable(fd, False)
            return fd
    return -1


def unmount(target: str | bytes) -> None:
    """Unmount, whoever mounted; lazily, so that users of it do not keep it from going."""
    try:
        syscalls.umount2(os.fsencode(target), syscalls.MNT_DETACH)
    except PermissionError:
        helper = _helper()
        said = _run([helper, "-u", "-z", "--", os.fsdecode(target)], os.environ)
        if said:
            raise MountError(errno.EPERM, f"cannot unmount {os.fsdecode(target)}: {said}") from None


def _helper() -> str:
    import shutil

    helper = shutil.which("fusermount3")
    if helper is None:
        message = "mounting as an ordinary user needs fusermount3: install the package fuse3"
        raise MountError(errno.ENOENT, message)
    return helper
