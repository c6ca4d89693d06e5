"""utimensat, and which times move when (POSIX, XBD 4.9 and each function's page)."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.systems import System, opened, raises

UTIME_OMIT = (1 << 30) - 2  # include/linux/stat.h
LATE = 5_000_000_000  # in the year 2128


@pytest.mark.parametrize("seconds", [-1, -1_000_000_000, LATE])
@pytest.mark.parametrize("name", ["d/f", "d", "s"])
def test_times_beyond_32_bits_are_kept(system: System, name: str, seconds: int) -> None:
    wanted = seconds * 10**9 + 123_456_789
    os.utime(system.root / name, ns=(wanted, wanted + 1), follow_symlinks=False)
    system.remount()
    info = os.lstat(system.root / name)
    assert (info.st_atime_ns, info.st_mtime_ns) == (wanted, wanted + 1)


def test_an_omitted_time_stays(root: Path) -> None:
    before = (root / "d/f").stat()
    times = (ctypes.c_long * 4)(0, UTIME_OMIT, 77, 5)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.utimensat(-100, os.fsencode(root / "d/f"), times, 0) == 0
    after = (root / "d/f").stat()
    assert (after.st_atime_ns, after.st_mtime_ns) == (before.st_atime_ns, 77 * 10**9 + 5)


CHANGES: list[Callable[[Path], object]] = [
    lambda path: os.chmod(path, 0o600),
    lambda path: os.utime(path, (1, 1)),
    lambda path: os.setxattr(path, "user.n", b"x"),
    lambda path: os.link(path, f"{path}-2"),
    lambda path: os.truncate(path, 3),
    lambda path: path.write_bytes(b"x"),
]


@pytest.mark.parametrize("change", CHANGES)
def test_changes_move_ctime(root: Path, change: Callable[[Path], object]) -> None:
    before = (root / "d/f").stat().st_ctime_ns
    change(root / "d/f")
    assert (root / "d/f").stat().st_ctime_ns > before


@pytest.mark.parametrize(
    "change",
    [
        lambda path: (path / "n").touch(),
        lambda path: (path / "n").mkdir(),
        lambda path: (path / "n").symlink_to("x"),
        lambda path: os.mkfifo(path / "n"),
        lambda path: os.link(path / "f", path / "n"),
        lambda path: (path / "f").unlink(),
        lambda path: (path / "f").rename(path / "n"),
    ],
)
def test_a_directory_whose_names_change_is_younger(root: Path, change: Callable[[Path], object]) -> None:
    before = (root / "d").stat()
    change(root / "d")
    after = (root / "d").stat()
    assert after.st_mtime_ns > before.st_mtime_ns
    assert after.st_ctime_ns > before.st_ctime_ns


def test_failing_calls_move_nothing(root: Path) -> None:
    before = (root / "d").stat()
    with raises(errno.EEXIST):
        (root / "d/f").mkdir()
    with raises(errno.ENOTEMPTY):
        (root / "d").rmdir()
    after = (root / "d").stat()
    assert (after.st_mtime_ns, after.st_ctime_ns) == (before.st_mtime_ns, before.st_ctime_ns)


def test_a_truncation_to_the_same_size_by_descriptor_moves_mtime(root: Path) -> None:
    with opened(root / "d/f", os.O_RDWR) as fd:
        before = os.fstat(fd)
        os.ftruncate(fd, before.st_size)
        assert os.fstat(fd).st_mtime_ns > before.st_mtime_ns
