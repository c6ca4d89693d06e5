"""/dev of a container: a small tmpfs, a few of the host's devices, terminals and message queues of its own."""

from __future__ import annotations

import os

from launcher.sandbox import syscalls
from launcher.sandbox.idmap import IdMap
from launcher.sandbox.paths import Targets

# A user namespace cannot make device nodes (mknod(2): EPERM), so those of the host are bound, as every rootless
# engine does. None gives access to anything but itself.
_SHARED = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
_TTY_GROUP = 5  # fixed in Debian, Fedora, Alpine and others; devpts gives terminals to it

_QUIET = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV | syscalls.MOUNT_ATTR_NOEXEC


class Devices:
    """The parts of /dev as detached mounts, taken while the host's /dev can still be seen."""

    def __init__(self, ids: IdMap, *, fuse: bool) -> None:
        self._root = syscalls.new_mount(
            "tmpfs",
            {"mode": "755", "size": "65536k"},
            syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NOEXEC,
        )
        terminals: dict[str, str | None] = {"newinstance": None, "ptmxmode": "0666", "mode": "0620"}
        if ids.has_gid(_TTY_GROUP):
            terminals["gid"] = str(_TTY_GROUP)
        self._directories = {
            "pts": syscalls.new_mount("devpts", terminals, syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NOEXEC),
            "shm": syscalls.new_mount("tmpfs", {"mode": "1777", "size": "65536k"}, _QUIET),
            "mqueue": syscalls.new_mount("mqueue", {}, _QUIET),
        }
        shared = (*_SHARED, "fuse") if fuse else _SHARED
        self._files = {name: syscalls.clone_tree(f"/dev/{name}") for name in shared}

    def attach(self, targets: Targets) -> None:
        """Put everything in place below the container's /dev; the descriptors are used up."""
        _put(self._root, targets.directory("/dev", plain=True))
        for name, tree in self._directories.items():
            os.mkdir(f"/dev/{name}", 0o755)
            _put(tree, syscalls.openat2(f"/dev/{name}", os.O_PATH, resolve=syscalls.RESOLVE_NO_SYMLINKS))
        for name, tree in self._files.items():
            _put(tree, _new_file(f"/dev/{name}"))
        for name, target in _LINKS.items():
            os.symlink(target, f"/dev/{name}")


def attach_console(terminal: str) -> None:
    """Make /dev/console the container's own terminal `terminal` (/dev/pts/N)."""
    _put(syscalls.clone_tree(terminal), _new_file("/dev/console"))


def _put(tree: int, target: int) -> None:
    syscalls.attach(tree, target)
    os.close(tree)
    os.close(target)


def _new_file(path: str) -> int:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    return syscalls.openat2(path, os.O_PATH, resolve=syscalls.RESOLVE_NO_SYMLINKS)
