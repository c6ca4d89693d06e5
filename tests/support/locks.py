"""Locks of every kind, taken by the test and by other processes: flock(2), and F_SETLK and F_OFD_SETLK of fcntl(2)."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.support.child import errno_in_child

RD, WR, UN = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK


class Lock(NamedTuple):
    """``struct flock`` of fcntl(2)."""

    type: int
    start: int = 0
    length: int = 0  # 0: to the end of the file, wherever that will be
    pid: int = 0
    whence: int = os.SEEK_SET

    def apply(self, fd: int, command: int) -> Lock:
        """fcntl(2) with this lock; what the kernel made of it."""
        answer = fcntl.fcntl(fd, command, struct.pack("hhqqi4x", self.type, self.whence, *self[1:4]))
        type_, whence, start, length, pid = struct.unpack("hhqqi4x", answer)
        return Lock(type_, start, length, pid, whence)


def set_range(fd: int, type_: int, start: int = 0, length: int = 0) -> None:
    """F_SETLK of fcntl(2): a lock of the process."""
    Lock(type_, start, length).apply(fd, fcntl.F_SETLK)


def set_ofd(fd: int, type_: int, start: int = 0, length: int = 0) -> None:
    """F_OFD_SETLK of fcntl(2): a lock of the open file."""
    Lock(type_, start, length).apply(fd, fcntl.F_OFD_SETLK)


def flock(fd: int, how: int) -> None:
    """flock(2) without waiting."""
    fcntl.flock(fd, how | fcntl.LOCK_NB)


def elsewhere(path: Path, call: Callable[[int], object], flags: int = os.O_RDWR) -> int:
    """The errno that `call` gets with a descriptor of another process's own, or 0."""
    return errno_in_child(lambda: call(os.open(path, flags)))


EXCLUSIVE: dict[str, Callable[[int], None]] = {
    "flock": lambda fd: flock(fd, fcntl.LOCK_EX),
    "posix": lambda fd: set_range(fd, WR),
    "ofd": lambda fd: set_ofd(fd, WR),
}
SHARED: dict[str, Callable[[int], None]] = {
    "flock": lambda fd: flock(fd, fcntl.LOCK_SH),
    "posix": lambda fd: set_range(fd, RD),
    "ofd": lambda fd: set_ofd(fd, RD),
}
NONE: dict[str, Callable[[int], None]] = {
    "flock": lambda fd: flock(fd, fcntl.LOCK_UN),
    "posix": lambda fd: set_range(fd, UN),
    "ofd": lambda fd: set_ofd(fd, UN),
}


def wait_for(fd: int, kind: str) -> None:
    """An exclusive lock, after whoever has one now."""
    if kind == "flock":
        fcntl.flock(fd, fcntl.LOCK_EX)
    else:
        Lock(WR).apply(fd, fcntl.F_SETLKW if kind == "posix" else fcntl.F_OFD_SETLKW)
