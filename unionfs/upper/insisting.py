"""What an owner may do where he has shut himself out, for a server that has no capabilities.

On a disk the owner of a directory of mode 0555 changes the mode of what is in it, renames it, and copies it elsewhere;
with a descriptor even of one of mode 0000. A server that is nobody special finds its own upper closed then (EACCES):
to put there what was copied up, or to mark a directory. So a change that the host refused is made once more inside
`Insisting.insisting`, in which what leads to it is opened to its owner, and shut again afterwards. A server that is
killed in that moment leaves a directory open to its owner, which is all that can go wrong.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from unionfs.tidying import tidying

_NAMED = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_OWNERS = {stat.S_IFDIR: 0o700, stat.S_IFREG: 0o600}
"""The permissions that the owner needs to change a thing of this type."""


class Insisting:
    """Opens what it is told to, inside `insisting`; outside, nothing."""

    def __init__(self) -> None:
        self._opened: list[tuple[int, int]] | None = None  # (O_PATH descriptor, st_mode before)

    @property
    def insists(self) -> bool:
        """Whether a call is made once more."""
        return self._opened is not None

    @contextmanager
    def insisting(self) -> Iterator[None]:
        """Inside, what is used of the upper is opened to its owner first. May be nested."""
        if self._opened is not None:
            yield
            return
        self._opened = []
        try:
            yield
        finally:
            self._shut(0)
            self._opened = None

    @contextmanager
    def opened_to_move(self, *moved: tuple[int, bytes]) -> Iterator[None]:
        """Inside, directories, each a name in another, may get another parent: their ".." is written then."""
        with self._shut_after():
            for place, name in moved:
                self.open_up_at(place, name, os.O_DIRECTORY)
            yield

    @contextmanager
    def opened(self, fd: int) -> Iterator[None]:
        """Inside, something is open to its owner; `fd` may be O_PATH."""
        with self._shut_after():
            self.open_up(fd)
            yield

    @contextmanager
    def _shut_after(self) -> Iterator[None]:
        before = len(self._opened or ())
        try:
            yield
        finally:
            self._shut(before)

    def _shut(self, before: int) -> None:
        """Shut again what was opened after so many others."""
        while self._opened and len(self._opened) > before:
            fd, mode = self._opened.pop()
            with tidying("setting a mode back"):
                if os.fstat(fd).st_mode == mode | _needed(mode):  # else it was changed meanwhile
                    os.chmod(_magic(fd), stat.S_IMODE(mode))
            os.close(fd)

    def open_up(self, fd: int) -> None:
        """Open a directory or file to its owner, by a descriptor that may be O_PATH."""
        if self._opened is None or fd < 0:
            return
        mode = os.fstat(fd).st_mode
        needed = _needed(mode)
        if mode & needed == needed:
            return
        try:
            os.chmod(_magic(fd), stat.S_IMODE(mode) | needed)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EROFS):  # of somebody else: the call itself will say so
                raise
            return
        self._opened.append((os.dup(fd), mode))

    def open_up_at(self, place: int, name: bytes, type_: int = 0) -> None:
        """The same for a name, which may be that of nothing; of a directory alone where `type_` is O_DIRECTORY."""
        if self._opened is None:
            return
        try:
            fd = os.open(name, _NAMED | type_, dir_fd=place)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            self.open_up(fd)
        finally:
            os.close(fd)


def _needed(mode: int) -> int:
    return _OWNERS.get(stat.S_IFMT(mode), 0)


def _magic(fd: int) -> bytes:
    return b"/proc/self/fd/%d" % fd
