"""Locks of an open file description (fcntl(2), "Open file description locks")."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from tests.support.child import in_child
from tests.support.locks import RD, WR, Lock, elsewhere, set_ofd, set_range
from tests.support.systems import opened, raises


def test_ofd_locks_between_two_descriptors_of_one_process(path: Path) -> None:
    with opened(path, os.O_RDWR) as fd, opened(path, os.O_RDWR) as second:
        set_ofd(fd, WR, 0, 10)
        with raises(errno.EAGAIN):
            set_ofd(second, RD, 5, 1)
        set_ofd(second, WR, 10, 10)
        for command in (fcntl.F_OFD_GETLK, fcntl.F_GETLK):
            assert Lock(WR).apply(second, command)[:4] == (WR, 0, 10, -1)
        with raises(errno.EAGAIN):
            set_range(fd, WR, 0, 1)  # a lock of the process conflicts with one of the open file, even its own
        os.close(os.open(path, os.O_RDWR))
        assert elsewhere(path, lambda other: set_ofd(other, RD, 0, 1)) == errno.EAGAIN


def test_ofd_locks_go_with_the_last_descriptor(path: Path) -> None:
    fd = os.open(path, os.O_RDWR)
    set_ofd(fd, WR)
    copy = os.dup(fd)
    os.close(fd)
    assert elsewhere(path, lambda other: set_ofd(other, RD)) == errno.EAGAIN
    in_child(lambda: set_ofd(copy, RD, 0, 10))  # the child's is the same open file
    assert elsewhere(path, lambda other: set_ofd(other, RD, 0, 10)) == 0
    assert elsewhere(path, lambda other: set_ofd(other, RD, 10, 1)) == errno.EAGAIN
    os.close(copy)
    assert elsewhere(path, lambda other: set_ofd(other, WR)) == 0
