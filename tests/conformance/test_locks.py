"""What locks of every kind have in common (flock(2); F_SETLK and F_OFD_SETLK of fcntl(2)): between processes, by every
name of a file, and across a copy-up.
"""

from __future__ import annotations

import errno
import mmap
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.child import Child, beside, in_child
from tests.support.locks import EXCLUSIVE, NONE, SHARED, elsewhere, wait_for
from tests.support.systems import opened, raises
from tests.support.waiting import wait_until


@pytest.fixture(params=EXCLUSIVE)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_exclusive_and_shared(path: Path, kind: str) -> None:
    with opened(path, os.O_RDWR) as fd:
        SHARED[kind](fd)
        assert elsewhere(path, SHARED[kind]) == 0
        assert elsewhere(path, EXCLUSIVE[kind]) == errno.EWOULDBLOCK
        EXCLUSIVE[kind](fd)
        assert elsewhere(path, SHARED[kind]) == errno.EWOULDBLOCK
        SHARED[kind](fd)
        assert elsewhere(path, SHARED[kind]) == 0
        NONE[kind](fd)
        assert elsewhere(path, EXCLUSIVE[kind]) == 0
        EXCLUSIVE[kind](fd)
    assert elsewhere(path, EXCLUSIVE[kind]) == 0


def test_an_upgrade_that_somebody_is_in_the_way_of(path: Path, kind: str) -> None:
    with opened(path, os.O_RDWR) as fd:

        def upgrade(other: int) -> None:
            SHARED[kind](other)
            EXCLUSIVE[kind](other)

        SHARED[kind](fd)
        assert elsewhere(path, upgrade) == errno.EWOULDBLOCK
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
            assert elsewhere(each, EXCLUSIVE[kind]) == errno.EWOULDBLOCK
        in_child(lambda: _expect(errno.EWOULDBLOCK, lambda: EXCLUSIVE[kind](other)))
        NONE[kind](fd)
        for each in names:
            assert elsewhere(each, EXCLUSIVE[kind]) == 0


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
        assert elsewhere(root / "empty/moved", EXCLUSIVE[kind]) == errno.EWOULDBLOCK
        path.write_text("another")
        assert elsewhere(path, EXCLUSIVE[kind]) == 0
        (root / "d/e").rename(root / "e")
        (root / "empty").rename(root / "e/deeper")
        assert elsewhere(root / "e/deeper/moved", EXCLUSIVE[kind]) == errno.EWOULDBLOCK
        (root / "e/deeper/moved").unlink()
        in_child(lambda: _expect(errno.EWOULDBLOCK, lambda: _reopened(fd, EXCLUSIVE[kind])))


def _reopened(fd: int, call: Callable[[int], object]) -> None:
    with opened(Path(f"/proc/self/fd/{fd}"), os.O_RDWR) as again:
        call(again)


@pytest.mark.parametrize("how", ["flock", "posix", "ofd"])
def test_who_waits_is_woken(path: Path, how: str) -> None:
    """Also when the lock goes because its holder does."""

    def waiter() -> None:
        with opened(path, os.O_RDWR) as fd:
            wait_for(fd, how)

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

    opens, has_opened = os.pipe()  # a process may sleep in open(2), too

    def waiter() -> None:
        signal.signal(signal.SIGUSR1, ring)
        with opened(path, os.O_RDWR) as fd:
            os.write(has_opened, b"+")
            with pytest.raises(Rung):
                wait_for(fd, kind)

    with opened(path, os.O_RDWR) as fd:
        EXCLUSIVE[kind](fd)
        with beside(waiter) as child:
            os.close(has_opened)
            assert os.read(opens, 1) == b"+"
            os.close(opens)
            wait_until(child.sleeps, "a process that waits for the lock")
            os.kill(child.pid, signal.SIGUSR1)
