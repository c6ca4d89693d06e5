"""Locks of every kind (flock(2); F_SETLK and F_OFD_SETLK of fcntl(2)) and leases: between descriptors and processes,
by every name of a file, and across a copy-up.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.child import Child, beside, in_child
from tests.support.systems import opened, raises
from tests.support.waiting import wait_until

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


def _set(fd: int, type_: int, start: int = 0, length: int = 0) -> None:
    Lock(type_, start, length).apply(fd, fcntl.F_SETLK)


def _set_ofd(fd: int, type_: int, start: int = 0, length: int = 0) -> None:
    Lock(type_, start, length).apply(fd, fcntl.F_OFD_SETLK)


def _flock(fd: int, how: int) -> None:
    fcntl.flock(fd, how | fcntl.LOCK_NB)


def _elsewhere(path: Path, call: Callable[[int], object], flags: int = os.O_RDWR) -> int:
    """The errno that `call` gets with a descriptor of another process's own, or 0."""
    child = os.fork()
    if not child:
        code = 255
        try:
            call(os.open(path, flags))
            code = 0
        except OSError as error:
            code = error.errno or 255
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


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


EXCLUSIVE: dict[str, Callable[[int], None]] = {
    "flock": lambda fd: _flock(fd, fcntl.LOCK_EX),
    "posix": lambda fd: _set(fd, WR),
    "ofd": lambda fd: _set_ofd(fd, WR),
}
SHARED: dict[str, Callable[[int], None]] = {
    "flock": lambda fd: _flock(fd, fcntl.LOCK_SH),
    "posix": lambda fd: _set(fd, RD),
    "ofd": lambda fd: _set_ofd(fd, RD),
}
NONE: dict[str, Callable[[int], None]] = {
    "flock": lambda fd: _flock(fd, fcntl.LOCK_UN),
    "posix": lambda fd: _set(fd, UN),
    "ofd": lambda fd: _set_ofd(fd, UN),
}


@pytest.fixture(params=EXCLUSIVE)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_exclusive_and_shared(path: Path, kind: str) -> None:
    with opened(path, os.O_RDWR) as fd:
        SHARED[kind](fd)
        assert _elsewhere(path, SHARED[kind]) == 0
        assert _elsewhere(path, EXCLUSIVE[kind]) == errno.EWOULDBLOCK
        EXCLUSIVE[kind](fd)
        assert _elsewhere(path, SHARED[kind]) == errno.EWOULDBLOCK
        SHARED[kind](fd)
        assert _elsewhere(path, SHARED[kind]) == 0
        NONE[kind](fd)
        assert _elsewhere(path, EXCLUSIVE[kind]) == 0
        EXCLUSIVE[kind](fd)
    assert _elsewhere(path, EXCLUSIVE[kind]) == 0


def test_an_upgrade_that_somebody_is_in_the_way_of(path: Path, kind: str) -> None:
    with opened(path, os.O_RDWR) as fd:

        def upgrade(other: int) -> None:
            SHARED[kind](other)
            EXCLUSIVE[kind](other)

        SHARED[kind](fd)
        assert _elsewhere(path, upgrade) == errno.EWOULDBLOCK
        EXCLUSIVE[kind](fd)


def test_what_a_lock_needs_of_its_descriptor(path: Path, kind: str) -> None:
    """A lock by fcntl(2) needs reading or writing as it says; flock(2) does not care. With O_PATH there is none."""
    for flags, locks in ((os.O_RDONLY, EXCLUSIVE), (os.O_WRONLY, SHARED)):
        with opened(path, flags) as fd:
            if kind == "flock":
                locks[kind](fd)
            else:
                with raises(errno.EBADF):
                    locks[kind](fd)
    with opened(path, os.O_PATH) as fd, raises(errno.EBADF):
        SHARED[kind](fd)


@pytest.mark.parametrize("change", ["write", "map", "chmod", "truncate", "large write", "link"])
@pytest.mark.parametrize("name", ["big", "b", "d/f"])
def test_a_lock_on_a_lower_file_outlives_its_copy_up(root: Path, kind: str, name: str, change: str) -> None:
    """Also for who opens the file only afterwards, by any of its names, and for who had it open all the time."""
    path = root / name
    names = [root / other for other in ("a", "b", "d/h")] if name == "b" else [path]
    with opened(path, os.O_RDWR) as fd, opened(path, os.O_RDWR) as other:
        EXCLUSIVE[kind](fd)
        _change(path, change)
        for each in names:
            assert _elsewhere(each, EXCLUSIVE[kind]) == errno.EWOULDBLOCK
        in_child(lambda: _expect(errno.EWOULDBLOCK, lambda: EXCLUSIVE[kind](other)))
        NONE[kind](fd)
        for each in names:
            assert _elsewhere(each, EXCLUSIVE[kind]) == 0


def _change(path: Path, how: str) -> None:
    if how == "chmod":
        path.chmod(0o640)
    elif how == "truncate":
        os.truncate(path, 3)
    elif how == "link":
        os.link(path, path.with_name("one more"))
    else:
        in_child(lambda: _write_elsewhere(path, how))


def _write_elsewhere(path: Path, how: str) -> None:
    """Not by the process with the lock, whose locks by fcntl(2) any close of the file releases."""
    with opened(path, os.O_RDWR) as fd:
        if how == "map":
            with mmap.mmap(fd, 0) as view:
                view[0] = 1
        else:
            os.pwrite(fd, b"x" * (1 << 21 if how == "large write" else 1), 0)


def _expect(code: int, call: Callable[[], object]) -> None:
    with raises(code):
        call()


def test_a_lock_follows_the_file_and_not_the_name(root: Path, kind: str) -> None:
    path = root / "d/f"
    with opened(path, os.O_RDWR) as fd:
        EXCLUSIVE[kind](fd)
        path.rename(root / "empty/moved")
        assert _elsewhere(root / "empty/moved", EXCLUSIVE[kind]) == errno.EWOULDBLOCK
        path.write_text("another")
        assert _elsewhere(path, EXCLUSIVE[kind]) == 0
        (root / "d/e").rename(root / "e")
        (root / "empty").rename(root / "e/deeper")
        assert _elsewhere(root / "e/deeper/moved", EXCLUSIVE[kind]) == errno.EWOULDBLOCK
        (root / "e/deeper/moved").unlink()
        in_child(lambda: _expect(errno.EWOULDBLOCK, lambda: _reopened(fd, EXCLUSIVE[kind])))


def _reopened(fd: int, call: Callable[[int], object]) -> None:
    with opened(Path(f"/proc/self/fd/{fd}"), os.O_RDWR) as again:
        call(again)


def _wait_for(fd: int, kind: str) -> None:
    if kind == "flock":
        fcntl.flock(fd, fcntl.LOCK_EX)
    else:
        Lock(WR).apply(fd, fcntl.F_SETLKW if kind == "posix" else fcntl.F_OFD_SETLKW)


@pytest.mark.parametrize("how", ["flock", "posix", "ofd"])
def test_who_waits_is_woken(path: Path, how: str) -> None:
    """Also when the lock goes because its holder does."""

    def waiter() -> None:
        with opened(path, os.O_RDWR) as fd:
            _wait_for(fd, how)

    for release in ("unlock", "close", "death"):
        holder = _Holder(path, EXCLUSIVE[how], NONE[how])
        try:
            with beside(waiter) as child:
                wait_until(child.sleeps, "a process that waits for the lock")
                assert not child.ended()
                holder.end(release)
        finally:
            holder.reap()


class _Holder:
    """A process with a lock that gives it up in the way it is told to."""

    def __init__(self, path: Path, lock: Callable[[int], None], unlock: Callable[[int], None]) -> None:
        order, self._orders = os.pipe()
        ready, told = os.pipe()

        def hold() -> None:
            os.close(self._orders)
            with opened(path, os.O_RDWR) as fd:
                lock(fd)
                os.write(told, b"+")
                word = os.read(order, 10)
                if word == b"unlock":
                    unlock(fd)
                    os.read(order, 10)

        self._child = Child(hold)
        os.close(order)
        os.close(told)
        assert os.read(ready, 1) == b"+"
        os.close(ready)
        self._killed = False

    def end(self, how: str) -> None:
        if how == "death":
            os.kill(self._child.pid, signal.SIGKILL)
            self._killed = True
        else:
            os.write(self._orders, how.encode())

    def reap(self) -> None:
        os.close(self._orders)
        if self._killed:
            with pytest.raises(AssertionError, match="status 9"):
                self._child.wait()
        else:
            self._child.wait()


def test_waiting_is_interrupted(path: Path, kind: str) -> None:
    class Rung(Exception):
        pass

    def ring(*_: object) -> None:
        raise Rung

    def waiter() -> None:
        signal.signal(signal.SIGUSR1, ring)
        with opened(path, os.O_RDWR) as fd, pytest.raises(Rung):
            _wait_for(fd, kind)

    with opened(path, os.O_RDWR) as fd:
        EXCLUSIVE[kind](fd)
        with beside(waiter) as child:
            wait_until(child.sleeps, "a process that waits for the lock")
            os.kill(child.pid, signal.SIGUSR1)


# flock(2): a lock belongs to the open file.


def test_flock_belongs_to_the_open_file(path: Path) -> None:
    with opened(path) as fd, opened(path) as second:
        _flock(fd, fcntl.LOCK_EX)
        _flock(fd, fcntl.LOCK_EX)
        with raises(errno.EWOULDBLOCK):
            _flock(second, fcntl.LOCK_SH)
        copy = os.dup(fd)
        os.close(os.open(path, os.O_RDONLY))  # closing another open file does nothing
        assert _elsewhere(path, lambda other: _flock(other, fcntl.LOCK_SH)) == errno.EWOULDBLOCK
        _flock(copy, fcntl.LOCK_SH)
        _flock(second, fcntl.LOCK_SH)
        with raises(errno.EWOULDBLOCK):
            _flock(second, fcntl.LOCK_EX)
        os.close(copy)


def test_flock_goes_with_the_last_descriptor(path: Path) -> None:
    """A child has the same open file: it keeps the lock, and may release it for all."""
    reader, writer = os.pipe()
    fd = os.open(path, os.O_RDONLY)
    _flock(fd, fcntl.LOCK_EX)

    def keep() -> None:
        os.close(writer)
        os.read(reader, 1)

    with beside(keep):
        os.close(fd)
        assert _elsewhere(path, lambda other: _flock(other, fcntl.LOCK_SH)) == errno.EWOULDBLOCK
        os.close(writer)
    os.close(reader)
    assert _elsewhere(path, lambda other: _flock(other, fcntl.LOCK_EX)) == 0
    with opened(path) as fd:
        _flock(fd, fcntl.LOCK_EX)
        in_child(lambda: _flock(fd, fcntl.LOCK_UN))
        assert _elsewhere(path, lambda other: _flock(other, fcntl.LOCK_EX)) == 0


def test_flock_of_every_kind_of_file(root: Path) -> None:
    for name, flags in (("d", os.O_RDONLY), ("empty", os.O_RDONLY), ("void", os.O_RDONLY), ("p", os.O_RDWR)):
        with opened(root / name, flags) as fd:
            _flock(fd, fcntl.LOCK_EX)
            exclusive: Callable[[int], None] = EXCLUSIVE["flock"]
            assert _elsewhere(root / name, exclusive, flags) == errno.EWOULDBLOCK
    with opened(root / "d") as fd:
        _set(fd, RD)
        _flock(fd, fcntl.LOCK_EX)
        (root / "d/new").touch()  # the directory is promoted
        assert _elsewhere(root / "d", EXCLUSIVE["flock"], os.O_RDONLY) == errno.EWOULDBLOCK


def test_flock_and_fcntl_ignore_each_other(path: Path) -> None:
    with opened(path, os.O_RDWR) as fd:
        _flock(fd, fcntl.LOCK_EX)
        assert _elsewhere(path, EXCLUSIVE["posix"]) == 0
        _set(fd, WR)
        assert _elsewhere(path, EXCLUSIVE["posix"]) == errno.EAGAIN


# fcntl(2): ranges, which belong to the process.


def test_ranges_overlap_and_split(path: Path) -> None:
    with opened(path, os.O_RDWR) as fd:
        _set(fd, WR, 10, 90)
        assert _ranges(path) == [(WR, 10, 90)]
        _set(fd, RD, 30, 20)
        assert _ranges(path) == [(WR, 10, 20), (RD, 30, 20), (WR, 50, 50)]
        _set(fd, UN, 40, 30)
        assert _ranges(path) == [(WR, 10, 20), (RD, 30, 10), (WR, 70, 30)]
        _set(fd, WR, 40, 30)
        _set(fd, WR, 30, 10)
        assert _ranges(path) == [(WR, 10, 90)]
        _set(fd, WR, 60, 100)
        assert _ranges(path) == [(WR, 10, 150)]
        _set(fd, UN)
        assert _ranges(path) == []


def test_ranges_of_two_processes(path: Path) -> None:
    with opened(path, os.O_RDWR) as fd:
        _set(fd, RD, 100, 100)
        for start, length, code in ((0, 100, 0), (200, 10, 0), (0, 101, errno.EAGAIN), (199, 1, errno.EAGAIN)):
            assert _elsewhere(path, lambda other, at=(start, length): _set(other, WR, *at)) == code  # type: ignore[misc]
            assert _elsewhere(path, lambda other, at=(start, length): _set(other, RD, *at)) == 0  # type: ignore[misc]


def test_ranges_beyond_and_to_the_end(path: Path) -> None:
    size = path.stat().st_size
    with opened(path, os.O_RDWR) as fd:
        _set(fd, WR, size + 1000, 10)
        assert _ranges(path) == [(WR, size + 1000, 10)]
        assert os.fstat(fd).st_size == size
        _set(fd, WR, size - 10)  # to the end, however far that moves
        assert _ranges(path) == [(WR, size - 10, 0)]
        os.truncate(path, size + 5000)
        assert _elsewhere(path, lambda other: _set(other, WR, size + 4000, 1)) == errno.EAGAIN
        _set(fd, UN, size, 1 << 40)
        assert _ranges(path) == [(WR, size - 10, 10), (WR, size + (1 << 40), 0)]
        _set(fd, UN)
        _set(fd, WR, (1 << 63) - 1, 1)
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
        _set(fd, WR)
        _set(fd, WR, 5, 5)
        os.close(os.open(path, os.O_RDONLY))
        assert _ranges(path) == []
        _set(fd, WR)
        os.close(os.dup(fd))
        assert _ranges(path) == []
        os.link(path, path.with_name("another name"))
        _set(fd, WR)
        os.close(os.open(path.with_name("another name"), os.O_RDONLY))
        assert _ranges(path) == []


def test_a_child_has_no_locks_and_releases_none(path: Path) -> None:
    with opened(path, os.O_RDWR) as fd:
        _set(fd, WR)

        def child() -> None:
            with raises(errno.EAGAIN):
                _set(fd, WR)
            lock = Lock(WR).apply(fd, fcntl.F_GETLK)
            assert (lock.type, lock.pid) == (WR, os.getppid())
            os.close(fd)

        in_child(child)
        assert _ranges(path) == [(WR, 0, 0)]
        assert Lock(WR).apply(fd, fcntl.F_GETLK).type == UN  # nobody else is in the way


def test_a_deadlock_is_refused(path: Path) -> None:
    def other() -> None:
        with opened(path, os.O_RDWR) as fd:
            _set(fd, WR, 10, 1)
            Lock(WR, 0, 1).apply(fd, fcntl.F_SETLKW)

    with opened(path, os.O_RDWR) as fd:
        _set(fd, WR, 0, 1)
        with beside(other) as child:
            wait_until(lambda: _blocked(child), "the other process to wait for this one")
            with raises(errno.EDEADLK):
                Lock(WR, 10, 1).apply(fd, fcntl.F_SETLKW)
            _set(fd, UN)


def _blocked(child: Child) -> bool:
    """Whether it waits for a lock, as /proc/locks tells by an arrow (proc(5))."""
    words = (line.split() for line in Path("/proc/locks").read_text().splitlines())
    return any(line[1] == "->" and line[5] == str(child.pid) for line in words)


# Locks of an open file description.


def test_ofd_locks_between_two_descriptors_of_one_process(path: Path) -> None:
    with opened(path, os.O_RDWR) as fd, opened(path, os.O_RDWR) as second:
        _set_ofd(fd, WR, 0, 10)
        with raises(errno.EAGAIN):
            _set_ofd(second, RD, 5, 1)
        _set_ofd(second, WR, 10, 10)
        for command in (fcntl.F_OFD_GETLK, fcntl.F_GETLK):
            assert Lock(WR).apply(second, command)[:4] == (WR, 0, 10, -1)
        with raises(errno.EAGAIN):
            _set(fd, WR, 0, 1)  # a lock of the process conflicts with one of the open file, even its own
        os.close(os.open(path, os.O_RDWR))
        assert _elsewhere(path, lambda other: _set_ofd(other, RD, 0, 1)) == errno.EAGAIN


def test_ofd_locks_go_with_the_last_descriptor(path: Path) -> None:
    fd = os.open(path, os.O_RDWR)
    _set_ofd(fd, WR)
    copy = os.dup(fd)
    os.close(fd)
    assert _elsewhere(path, lambda other: _set_ofd(other, RD)) == errno.EAGAIN
    in_child(lambda: _set_ofd(copy, RD, 0, 10))  # the child's is the same open file
    assert _elsewhere(path, lambda other: _set_ofd(other, RD, 0, 10)) == 0
    assert _elsewhere(path, lambda other: _set_ofd(other, RD, 10, 1)) == errno.EAGAIN
    os.close(copy)
    assert _elsewhere(path, lambda other: _set_ofd(other, WR)) == 0


# Leases.


@contextmanager
def _counted(number: int) -> Iterator[list[int]]:
    """Signals that come, instead of what they do."""
    came: list[int] = []
    before = signal.signal(number, lambda number, _: came.append(number))
    try:
        yield came
    finally:
        signal.signal(number, before)


def test_a_lease_is_broken_by_who_opens(path: Path) -> None:
    """fcntl(2), "Leases": the opener is refused or waits, the holder gets SIGIO and downgrades or gives up."""
    with opened(path) as fd, _counted(signal.SIGIO) as rung:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, RD)
        assert fcntl.fcntl(fd, fcntl.F_GETLEASE) == RD
        assert _elsewhere(path, lambda _: None, os.O_RDONLY) == 0
        assert not rung
        assert _elsewhere(path, lambda _: None, os.O_WRONLY | os.O_NONBLOCK) == errno.EWOULDBLOCK
        assert rung == [signal.SIGIO]
        fcntl.fcntl(fd, fcntl.F_SETLEASE, UN)
        assert _elsewhere(path, lambda _: None, os.O_WRONLY | os.O_NONBLOCK) == 0
        fcntl.fcntl(fd, fcntl.F_SETLEASE, WR)
        assert _elsewhere(path, lambda _: None, os.O_RDONLY | os.O_NONBLOCK) == errno.EWOULDBLOCK
        fcntl.fcntl(fd, fcntl.F_SETLEASE, RD)
        assert _elsewhere(path, lambda _: None, os.O_RDONLY | os.O_NONBLOCK) == 0
        fcntl.fcntl(fd, fcntl.F_SETLEASE, UN)


def test_leases_that_are_refused(root: Path, path: Path) -> None:
    with opened(path) as fd, opened(path, os.O_RDWR) as writing:
        for kind in (RD, WR):
            with raises(errno.EAGAIN):
                fcntl.fcntl(fd, fcntl.F_SETLEASE, kind)
        with raises(errno.EAGAIN):
            fcntl.fcntl(writing, fcntl.F_SETLEASE, RD)
    with opened(root / "d") as fd, raises(errno.EINVAL):
        fcntl.fcntl(fd, fcntl.F_SETLEASE, RD)
