"""Locks between processes: flock(2), fcntl(2) with F_SETLK and F_OFD_SETLK; also across a copy-up."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.systems import opened


def _flock(fd: int) -> None:
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _posix(fd: int) -> None:
    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _ofd(fd: int) -> None:
    lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)  # struct flock, fcntl(2)
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, lock)


def _other_process(path: Path, lock: Callable[[int], None]) -> int:
    """The errno that another process gets, or 0."""
    child = os.fork()
    if not child:
        code = 255
        try:
            lock(os.open(path, os.O_RDWR))
            code = 0
        except OSError as error:
            code = error.errno or 255
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("lock", [_flock, _posix, _ofd])
def test_a_lock_keeps_other_processes_out(root: Path, lock: Callable[[int], None]) -> None:
    with opened(root / "a", os.O_RDWR) as fd:
        lock(fd)
        os.pwrite(fd, b"x", 0)
        assert _other_process(root / "b", lock) == errno.EAGAIN
    assert _other_process(root / "b", lock) == 0
