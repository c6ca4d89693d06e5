"""Names inside the container, resolved when the process has already pivoted and nothing of the image runs yet.

The image may be hostile: any of its names may be a symbolic link, a fifo or missing. Resolution stays below the
container's root because that is this process's root, and never passes a magic link of /proc, which could
lead out (CVE-2019-16884, CVE-2024-21626).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from launcher.container.removal import remove_tree
from launcher.errors import UfsError
from launcher.sandbox import syscalls

_INSIDE = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
_FILE_LIMIT = 32 << 20
"""Bytes of an /etc/passwd of 400,000 users: reading that takes a tenth of a second."""


class Targets:
    """Finds or makes the files that mounts are put on, and remembers which it had to make."""

    def __init__(self) -> None:
        self.created: list[str] = []
        self._root = os.stat("/").st_dev

    def directory(self, path: str, *, mode: int = 0o755, plain: bool = False) -> int:
        """An O_PATH descriptor of the directory `path`; `plain` refuses a symbolic link anywhere in it."""
        resolve = _INSIDE | (syscalls.RESOLVE_NO_SYMLINKS if plain else 0)
        try:
            descriptor = syscalls.openat2(path, os.O_PATH | os.O_DIRECTORY, resolve=resolve)
        except FileNotFoundError:
            self._make_directories(path if plain else os.path.realpath(path), mode)
            descriptor = syscalls.openat2(path, os.O_PATH | os.O_DIRECTORY, resolve=resolve)
        except NotADirectoryError as error:
            raise UfsError(f"{path} is not a directory in the image, so nothing can be mounted there", 125) from error
        return descriptor

    def make(self, path: str) -> bool:
        """Make the directory `path` where nothing is, also where a symbolic link leads to nothing: whether it is there.

        Nothing where that cannot be: below a file, or at the end of links that go in a circle. Who uses it will tell.
        """
        if not os.path.exists(path) and self._may_be_made(real := os.path.realpath(path)):
            self._make_directories(real, 0o755)
        return os.path.isdir(path)

    def file(self, path: str) -> int:
        """An O_PATH descriptor of the file `path`, which is no directory; made empty where missing."""
        try:
            descriptor = syscalls.openat2(path, os.O_PATH, resolve=_INSIDE)
        except FileNotFoundError:
            # Also a symbolic link to nothing, as /etc/resolv.conf often is: what it names is made.
            real = os.path.realpath(path)
            self._make_directories(os.path.dirname(real), 0o755)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            with _times_kept(os.path.dirname(real)):
                os.close(syscalls.openat2(real, flags, mode=0o644, resolve=_INSIDE | syscalls.RESOLVE_NO_SYMLINKS))
            self.created.append(real)
            descriptor = syscalls.openat2(path, os.O_PATH, resolve=_INSIDE)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise UfsError(f"{path} is a directory in the image; a file cannot be mounted there", 125)
        return descriptor

    def own_file(self, path: str) -> int | None:
        """As `file`, for a file of ours: whatever else is there in the container's layer gives way to an empty file.

        That may be a directory, a link with itself, to another mount such as /proc, or through a file. Below a volume
        nothing is made or removed, since it is the host's: None where there is no file.
        """
        parent, name = os.path.split(path)
        if not os.path.isdir(parent) and not self._may_be_made(os.path.realpath(parent)):
            raise UfsError(f"{parent} is no directory in the image, and {name} has to be put there", 125)
        directory = self.directory(parent)
        try:
            found = self._plain_file(path)
            if found is not None or os.fstat(directory).st_dev != self._root:
                return found
            if not os.path.lexists(path) or self._may_be_made(os.path.realpath(path)):
                # ENOENT: the kernel does not find its way through "NAME/.." where NAME is missing, realpath does.
                with suppress(FileNotFoundError):
                    return self.file(path)
            real = os.path.join(os.path.realpath(parent), name)
            with _times_kept(os.path.dirname(real)):
                remove_tree(real) if os.path.isdir(real) and not os.path.islink(real) else os.unlink(real)
            return self.file(real)
        finally:
            os.close(directory)

    def _plain_file(self, path: str) -> int | None:
        """The file at `path`, unless it is a directory, not there, or of a mount that is not the container's."""
        try:
            descriptor = syscalls.openat2(path, os.O_PATH, resolve=_INSIDE)
        except OSError:  # ENOENT, ELOOP, ENOTDIR, ENAMETOOLONG: not to be found, however that comes
            return None
        state = os.fstat(descriptor)
        parent = os.stat(os.path.dirname(path))
        if stat.S_ISDIR(state.st_mode) or state.st_dev not in (self._root, parent.st_dev):
            os.close(descriptor)
            return None
        return descriptor

    def _may_be_made(self, path: str) -> bool:
        """Whether nothing is at `path`, a name without links, and a directory of the container's layer is above it."""
        if os.path.lexists(path):
            return False
        while not os.path.lexists(path):
            path = os.path.dirname(path)
        return os.path.isdir(path) and os.stat(path).st_dev == self._root

    def link(self, path: str, target: str) -> None:
        """Make the symbolic link `path` to `target` in the container's layer, where nothing of that name is."""
        parent, name = os.path.split(path)
        directory = self.directory(parent)
        try:
            if os.fstat(directory).st_dev == self._root and not os.path.lexists(path):
                real = os.path.realpath(parent)
                with _times_kept(real):
                    os.symlink(target, name, dir_fd=directory)
                self.created.append(os.path.join(real, name))
        finally:
            os.close(directory)

    def _make_directories(self, path: str, mode: int) -> None:
        missing = []
        while not _is_directory(path):
            missing.append(path)
            path = os.path.dirname(path)
        while missing:
            path = missing.pop()
            with _times_kept(os.path.dirname(path)):
                os.mkdir(path)
            os.chmod(path, 0o755 if missing else mode)  # the umask may have taken bits away
            self.created.append(path)


def _is_directory(path: str) -> bool:
    """OSError where that cannot be told: of a name too long to be one (ENAMETOOLONG) nothing is made."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


@contextmanager
def _times_kept(directory: str) -> Iterator[None]:
    """A place to mount on is nothing that happened in the directory, neither for programs nor for `ufs diff`."""
    before = os.stat(directory)
    yield
    os.utime(directory, ns=(before.st_atime_ns, before.st_mtime_ns))


def read_file(path: str) -> str:
    """The text of a small regular file of the image, "" where there is none; never blocks on a fifo."""
    try:
        descriptor = syscalls.openat2(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY, resolve=_INSIDE)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    with open(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UfsError(f"{path} in the image is not a regular file", 125)
        data = stream.read(_FILE_LIMIT + 1)
    if len(data) > _FILE_LIMIT:
        raise UfsError(f"{path} in the image is larger than {_FILE_LIMIT} bytes", 125)
    return data.decode(errors="surrogateescape")
