"""flock(2): a lock belongs to the open file."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from tests.support.child import beside, in_child
from tests.support.locks import EXCLUSIVE, RD, WR, elsewhere, flock, set_range
from tests.support.systems import opened, raises


def test_flock_belongs_to_the_open_file(path: Path) -> None:
    with opened(path) as fd, opened(path) as second:
        flock(fd, fcntl.LOCK_EX)
        flock(fd, fcntl.LOCK_EX)
        with raises(errno.EWOULDBLOCK):
            flock(second, fcntl.LOCK_SH)
        copy = os.dup(fd)
        os.close(os.open(path, os.O_RDONLY))  # closing another open file does nothing
        assert elsewhere(path, lambda other: flock(other, fcntl.LOCK_SH)) == errno.EWOULDBLOCK
        flock(copy, fcntl.LOCK_SH)
        flock(second, fcntl.LOCK_SH)
        with raises(errno.EWOULDBLOCK):
            flock(second, fcntl.LOCK_EX)
        os.close(copy)


def test_flock_goes_with_the_last_descriptor(path: Path) -> None:
    """A child has the same open file: it keeps the lock, and may release it for all."""
    reader, writer = os.pipe()
    fd = os.open(path, os.O_RDONLY)
    flock(fd, fcntl.LOCK_EX)

    def keep() -> None:
        os.close(writer)
        os.read(reader, 1)

    with beside(keep):
        os.close(fd)
        assert elsewhere(path, lambda other: flock(other, fcntl.LOCK_SH)) == errno.EWOULDBLOCK
        os.close(writer)
    os.close(reader)
    assert elsewhere(path, lambda other: flock(other, fcntl.LOCK_EX)) == 0
    with opened(path) as fd:
        flock(fd, fcntl.LOCK_EX)
        in_child(lambda: flock(fd, fcntl.LOCK_UN))
        assert elsewhere(path, lambda other: flock(other, fcntl.LOCK_EX)) == 0


def test_flock_of_every_kind_of_file(root: Path) -> None:
    for name, flags in (("d", os.O_RDONLY), ("empty", os.O_RDONLY), ("void", os.O_RDONLY), ("p", os.O_RDWR)):
        with opened(root / name, flags) as fd:
            flock(fd, fcntl.LOCK_EX)
            exclusive: Callable[[int], None] = EXCLUSIVE["flock"]
            assert elsewhere(root / name, exclusive, flags) == errno.EWOULDBLOCK
    with opened(root / "d") as fd:
        set_range(fd, RD)
        flock(fd, fcntl.LOCK_EX)
        (root / "d/new").touch()  # the directory is promoted
        assert elsewhere(root / "d", EXCLUSIVE["flock"], os.O_RDONLY) == errno.EWOULDBLOCK


def test_flock_and_fcntl_ignore_each_other(path: Path) -> None:
    with opened(path, os.O_RDWR) as fd:
        flock(fd, fcntl.LOCK_EX)
        assert elsewhere(path, EXCLUSIVE["posix"]) == 0
        set_range(fd, WR)
        assert elsewhere(path, EXCLUSIVE["posix"]) == errno.EAGAIN
