"""Locks of fcntl(2): ranges of bytes, which belong to the process."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from functools import partial
from pathlib import Path

import pytest

from tests.support.child import Child, beside, in_child
from tests.support.locks import RD, UN, WR, Lock, elsewhere, set_range
from tests.support.systems import opened, raises
from tests.support.waiting import wait_until


def _held(path: Path, start: int = 0, length: int = 0) -> Lock | None:
    """The first lock that keeps another process from writing there, as F_GETLK tells it."""
    reader, writer = os.pipe()

    def ask() -> None:
        with opened(path, os.O_RDWR) as fd:
            os.write(writer, struct.pack("5q", *Lock(WR, start, length).apply(fd, fcntl.F_GETLK)))

    try:
        in_child(ask)
        found = Lock(*struct.unpack("5q", os.read(reader, 40)))
    finally:
        os.close(reader)
        os.close(writer)
    return None if found.type == UN else found


def _ranges(path: Path) -> list[tuple[int, int, int]]:
    """All that this process has locked in a file as (type, start, length), in order."""
    found, start = [], 0
    while (lock := _held(path, start)) is not None:
        assert lock.pid == os.getpid()
        found.append((lock.type, lock.start, lock.length))
        if not lock.length:
            break
        start = lock.start + lock.length
    return found


def test_ranges_overlap_and_split(path: Path) -> None:
    with opened(path, os.O_RDWR) as fd:
        set_range(fd, WR, 10, 90)
        assert _ranges(path) == [(WR, 10, 90)]
        set_range(fd, RD, 30, 20)
        assert _ranges(path) == [(WR, 10, 20), (RD, 30, 20), (WR, 50, 50)]
        set_range(fd, UN, 40, 30)
        assert _ranges(path) == [(WR, 10, 20), (RD, 30, 10), (WR, 70, 30)]
        set_range(fd, WR, 40, 30)
        set_range(fd, WR, 30, 10)
        assert _ranges(path) == [(WR, 10, 90)]
        set_range(fd, WR, 60, 100)
        assert _ranges(path) == [(WR, 10, 150)]
        set_range(fd, UN)
        assert _ranges(path) == []


def test_ranges_of_two_processes(path: Path) -> None:
    with opened(path, os.O_RDWR) as fd:
        set_range(fd, RD, 100, 100)
        for start, length, code in ((0, 100, 0), (200, 10, 0), (0, 101, errno.EAGAIN), (199, 1, errno.EAGAIN)):
            assert elsewhere(path, partial(set_range, type_=WR, start=start, length=length)) == code
            assert elsewhere(path, partial(set_range, type_=RD, start=start, length=length)) == 0


def test_ranges_beyond_and_to_the_end(path: Path) -> None:
    size = path.stat().st_size
    with opened(path, os.O_RDWR) as fd:
        set_range(fd, WR, size + 1000, 10)
        assert _ranges(path) == [(WR, size + 1000, 10)]
        assert os.fstat(fd).st_size == size
        set_range(fd, WR, size - 10)  # to the end, however far that moves
        assert _ranges(path) == [(WR, size - 10, 0)]
        os.truncate(path, size + 5000)
        assert elsewhere(path, lambda other: set_range(other, WR, size + 4000, 1)) == errno.EAGAIN
        set_range(fd, UN, size, 1 << 40)
        assert _ranges(path) == [(WR, size - 10, 10), (WR, size + (1 << 40), 0)]
        set_range(fd, UN)
        set_range(fd, WR, (1 << 63) - 1, 1)
        assert _ranges(path) == [(WR, (1 << 63) - 1, 0)]


def test_ranges_from_elsewhere_than_the_beginning(path: Path) -> None:
    size = path.stat().st_size
    with opened(path, os.O_RDWR) as fd:
        Lock(WR, -100, 50, whence=os.SEEK_END).apply(fd, fcntl.F_SETLK)
        os.lseek(fd, 1000, os.SEEK_SET)
        Lock(RD, 10, -20, whence=os.SEEK_CUR).apply(fd, fcntl.F_SETLK)  # a negative length is what lies before
        assert _ranges(path) == [(RD, 990, 20), (WR, size - 100, 50)]


@pytest.mark.parametrize("command", [fcntl.F_SETLK, fcntl.F_GETLK, fcntl.F_OFD_SETLK, fcntl.F_OFD_GETLK])
def test_ranges_that_are_none(path: Path, command: int) -> None:
    cases = [
        (Lock(WR, -1), errno.EINVAL),
        (Lock(WR, 10, -11), errno.EINVAL),
        (Lock(WR, (1 << 63) - 1, 2), errno.EOVERFLOW),
        (Lock(WR, whence=7), errno.EINVAL),
        (Lock(9), errno.EINVAL),
    ]
    if command in (fcntl.F_OFD_SETLK, fcntl.F_OFD_GETLK):
        cases.append((Lock(WR, pid=1), errno.EINVAL))
    with opened(path, os.O_RDWR) as fd:
        for lock, code in cases:
            with raises(code):
                lock.apply(fd, command)


def test_any_close_releases_what_the_process_has(path: Path) -> None:
    """The trap of POSIX (fcntl(2)), by whatever descriptor and name."""
    with opened(path, os.O_RDWR) as fd:
        set_range(fd, WR)
        set_range(fd, WR, 5, 5)
        os.close(os.open(path, os.O_RDONLY))
        assert _ranges(path) == []
        set_range(fd, WR)
        os.close(os.dup(fd))
        assert _ranges(path) == []
        os.link(path, path.with_name("another name"))
        set_range(fd, WR)
        os.close(os.open(path.with_name("another name"), os.O_RDONLY))
        assert _ranges(path) == []


def test_a_child_has_no_locks_and_releases_none(path: Path) -> None:
    with opened(path, os.O_RDWR) as fd:
        set_range(fd, WR)

        def child() -> None:
            with raises(errno.EAGAIN):
                set_range(fd, WR)
            lock = Lock(WR).apply(fd, fcntl.F_GETLK)
            assert (lock.type, lock.pid) == (WR, os.getppid())
            os.close(fd)

        in_child(child)
        assert _ranges(path) == [(WR, 0, 0)]
        assert Lock(WR).apply(fd, fcntl.F_GETLK).type == UN  # nobody else is in the way


def test_a_deadlock_is_refused(path: Path) -> None:
    def other() -> None:
        with opened(path, os.O_RDWR) as fd:
            set_range(fd, WR, 10, 1)
            Lock(WR, 0, 1).apply(fd, fcntl.F_SETLKW)

    with opened(path, os.O_RDWR) as fd:
        set_range(fd, WR, 0, 1)
        with beside(other) as child:
            wait_until(lambda: _blocked(child), "the other process to wait for this one")
            with raises(errno.EDEADLK):
                Lock(WR, 10, 1).apply(fd, fcntl.F_SETLKW)
            set_range(fd, UN)


def _blocked(child: Child) -> bool:
    """Whether it waits for a lock, as /proc/locks tells by an arrow (proc(5))."""
    words = (line.split() for line in Path("/proc/locks").read_text().splitlines())
    return any(line[1] == "->" and line[5] == str(child.pid) for line in words)
