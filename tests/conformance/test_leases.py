"""Leases: fcntl(2), "Leases"."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.locks import RD, UN, WR, elsewhere
from tests.support.systems import opened, raises


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
        assert elsewhere(path, lambda _: None, os.O_RDONLY) == 0
        assert not rung
        assert elsewhere(path, lambda _: None, os.O_WRONLY | os.O_NONBLOCK) == errno.EWOULDBLOCK
        assert rung == [signal.SIGIO]
        fcntl.fcntl(fd, fcntl.F_SETLEASE, UN)
        assert elsewhere(path, lambda _: None, os.O_WRONLY | os.O_NONBLOCK) == 0
        fcntl.fcntl(fd, fcntl.F_SETLEASE, WR)
        assert elsewhere(path, lambda _: None, os.O_RDONLY | os.O_NONBLOCK) == errno.EWOULDBLOCK
        fcntl.fcntl(fd, fcntl.F_SETLEASE, RD)
        assert elsewhere(path, lambda _: None, os.O_RDONLY | os.O_NONBLOCK) == 0
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
