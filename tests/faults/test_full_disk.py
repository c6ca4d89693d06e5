"""A real upper that is full, has no inodes left or is read-only: the caller is told, and nothing changes."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.content import LOWERS, Lower
from tests.support.mounted import Mounted
from tests.support.snapshot import differences, snapshot
from tests.support.systems import opened, raises

pytestmark = pytest.mark.only_root  # mounts a tmpfs

Change = Callable[[Path], object]


def _write(path: Path) -> None:
    with opened(path, os.O_WRONLY | os.O_CREAT) as fd:
        os.write(fd, b"x" * (1 << 20))


NEED_BLOCKS: dict[str, Change] = {
    "write to a lower file": lambda root: _write(root / "d/f"),
    "write to a large lower file": lambda root: _write(root / "big"),
    "write to a file of several names": lambda root: _write(root / "a"),
    "truncate": lambda root: os.truncate(root / "d/f", 5),
    "chmod": lambda root: (root / "big").chmod(0o600),
    "rename": lambda root: (root / "big").rename(root / "n"),
    "rename over": lambda root: (root / "d/f").rename(root / "d/g"),
    "link": lambda root: (root / "n").hardlink_to(root / "d/f"),
    "setxattr": lambda root: os.setxattr(root / "d/f", "user.n", b"x"),
    "fallocate": lambda root: _allocate(root / "new"),
}

NEED_INODES: dict[str, Change] = {
    "create": lambda root: (root / "n").touch(),
    "create below": lambda root: (root / "d/e/n").touch(),
    "mkdir": lambda root: (root / "n").mkdir(),
    "symlink": lambda root: (root / "n").symlink_to("x"),
    "fifo": lambda root: os.mkfifo(root / "n"),
    "chmod": lambda root: (root / "d/f").chmod(0o600),
    "chmod a directory": lambda root: (root / "d").chmod(0o700),
    "rename": lambda root: (root / "big").rename(root / "n"),
    "rename a directory": lambda root: (root / "d").rename(root / "n"),
    "unlink below": lambda root: (root / "d/f").unlink(),
    "setxattr": lambda root: os.setxattr(root / "d", "user.n", b"x"),
}


def _allocate(path: Path) -> None:
    with opened(path, os.O_RDWR) as fd:
        os.posix_fallocate(fd, 0, 1 << 20)


@contextmanager
def _upper_on_tmpfs(base: Path, kind: str, options: str) -> Iterator[Mounted]:
    """A mount whose upper and work directory lie on a tmpfs of their own."""
    disk = base / "disk"
    disk.mkdir()
    lower = Lower(base / "lower", kind)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "ufs-test", disk], check=True)
    try:
        mounted = Mounted(base, lower.open, "direct")
        mounted.upper, mounted.work = disk / "upper", disk / "work"
        mounted.upper.mkdir()
        mounted.work.mkdir()
        mounted.mount()
        try:
            (mounted.target / "new").write_text("new")
            yield mounted
        finally:
            mounted.unmount()
        assert os.listdir(mounted.work / "work") == []
    finally:
        subprocess.run(["umount", disk], check=True)


def _fill(path: Path) -> None:
    with opened(path, os.O_WRONLY | os.O_CREAT) as fd, raises(errno.ENOSPC):
        while os.write(fd, bytes(1 << 16)):
            pass


def _use_up_inodes(directory: Path) -> None:
    directory.mkdir()
    with raises(errno.ENOSPC):
        for number in range(10_000):
            (directory / str(number)).touch()


def _shown(mounted: Mounted) -> dict[str, dict[str, object]]:
    return snapshot(str(mounted.target))


def _refused_and_then_done(mounted: Mounted, change: Change, code: int, relieve: Callable[[], object]) -> None:
    """The change fails with `code`, shows nowhere, also after a remount, and is made after `relieve`."""
    before = _shown(mounted)
    with raises(code):
        change(mounted.target)
    assert os.listdir(mounted.work / "work") == []
    assert not differences(_shown(mounted), before)
    relieve()
    assert not differences(_shown(mounted), before)
    change(mounted.target)
    after = _shown(mounted)
    assert differences(after, before)
    mounted.unmount()
    mounted.mount()
    assert not differences(_shown(mounted), after)


@pytest.mark.parametrize("kind", LOWERS)
@pytest.mark.parametrize("name", NEED_BLOCKS)
def test_no_block_left(tmp_path: Path, kind: str, name: str) -> None:
    with _upper_on_tmpfs(tmp_path, kind, "size=8m") as mounted:
        ballast = mounted.upper.parent / "ballast"
        _fill(ballast)
        _refused_and_then_done(mounted, NEED_BLOCKS[name], errno.ENOSPC, ballast.unlink)


def test_what_fits_is_written(tmp_path: Path) -> None:
    """As on any disk: write(2) says how much, and only a call that writes nothing fails."""
    with _upper_on_tmpfs(tmp_path, "image", "size=8m") as mounted:
        _fill(mounted.upper.parent / "ballast")
        path = mounted.target / "new"
        with opened(path, os.O_RDWR) as fd:
            assert os.pwrite(fd, b"x" * (1 << 20), 0) == 4096  # the page that three bytes had taken
            with raises(errno.ENOSPC):
                os.pwrite(fd, b"y", 4096)
        assert path.read_bytes() == b"x" * 4096


@pytest.mark.parametrize("kind", LOWERS)
@pytest.mark.parametrize("name", NEED_INODES)
def test_no_inode_left(tmp_path: Path, kind: str, name: str) -> None:
    with _upper_on_tmpfs(tmp_path, kind, "size=8m,nr_inodes=100") as mounted:
        ballast = mounted.upper.parent / "ballast"
        _use_up_inodes(ballast)

        def relieve() -> None:
            for file in ballast.iterdir():
                file.unlink()

        _refused_and_then_done(mounted, NEED_INODES[name], errno.ENOSPC, relieve)


@pytest.mark.parametrize("kind", LOWERS)
@pytest.mark.parametrize("name", NEED_INODES)
def test_read_only(tmp_path: Path, kind: str, name: str) -> None:
    with _upper_on_tmpfs(tmp_path, kind, "size=8m") as mounted:
        disk = mounted.upper.parent
        (mounted.target / "new").unlink()
        mounted.unmount()
        mounted.mount()  # with no file open for writing, which the remount would be refused for
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        writable = ["mount", "-o", "remount,rw", disk]
        _refused_and_then_done(mounted, NEED_INODES[name], errno.EROFS, lambda: subprocess.run(writable, check=True))


@pytest.mark.parametrize("kind", LOWERS)
def test_what_is_there_can_be_read_while_the_upper_is_read_only(tmp_path: Path, kind: str) -> None:
    with _upper_on_tmpfs(tmp_path, kind, "size=8m") as mounted:
        disk = mounted.upper.parent
        path = mounted.target / "new"
        os.truncate(path, 5)
        os.pwrite(fd := os.open(path, os.O_WRONLY), b"words", 0)
        os.close(fd)
        mounted.unmount()
        mounted.mount()
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        assert path.read_bytes() == b"words"
        with opened(path, os.O_WRONLY) as fd, raises(errno.EROFS):
            os.pwrite(fd, b"other", 0)
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        path.write_bytes(b"other")
        assert path.read_bytes() == (mounted.upper / "new").read_bytes() == b"other"
