"""A mount that is aborted while requests wait for a copy: the server ends as it does after any unmount."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.support.child import beside
from tests.support.mounted import Mounted
from tests.support.systems import raises
from tests.support.waiting import wait_until
from unionfs import copying, syscalls
from unionfs.live.directories import DirectoryStack
from unionfs.union.promote import COPY_INLINE

_MNT_FORCE = 1


@pytest.mark.only_root  # umount(2)
def test_a_request_that_waits_for_two_copies_ends_with_the_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lower").mkdir()
    for name in ("one", "two"):
        (tmp_path / "lower" / name).write_bytes(bytes(COPY_INLINE + 1))
    begun, begin = os.pipe()
    gate, opener = os.pipe()
    copy = copying.copy_file

    def copy_when_told(*args: int) -> None:
        os.write(begin, b"+")
        os.read(gate, 1)
        copy(*args)

    monkeypatch.setattr(copying, "copy_file", copy_when_told)
    mounted = Mounted(tmp_path, lambda: DirectoryStack([os.fsencode(tmp_path / "lower")]), "direct")
    mounted.mount()
    try:
        one, two = os.fsencode(mounted.target / "one"), os.fsencode(mounted.target / "two")

        def exchange() -> None:
            with raises(errno.ECONNABORTED):
                syscalls.renameat2(syscalls.AT_FDCWD, one, syscalls.AT_FDCWD, two, syscalls.RENAME_EXCHANGE)

        with beside(exchange) as child:
            assert os.read(begun, 1)
            with raises(errno.EBUSY):  # the connection is aborted all the same (fuse_umount_begin())
                syscalls.umount2(os.fsencode(mounted.target), _MNT_FORCE)
            wait_until(child.ended, "the caller to have its error")
        os.write(opener, b"++")
    finally:
        mounted.unmount()
        for fd in (begun, begin, gate, opener):
            os.close(fd)
