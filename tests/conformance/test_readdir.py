"""readdir(3) and its neighbours: numbers and types of entries, rewinding, and what paths may not be."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.support.systems import System, raises


@pytest.mark.parametrize("changed", [False, True])
def test_entries_agree_with_stat(system: System, changed: bool) -> None:
    if changed:
        for name in ("n", "a"):
            (system.root / name).write_text("x")
        (system.root / "d").rename(system.root / "empty/d")
    for path, _, _ in os.walk(system.root):
        with os.scandir(path) as entries:
            for entry in entries:
                info = os.lstat(entry.path)
                assert entry.inode() == info.st_ino, entry.path
                assert entry.is_dir(follow_symlinks=False) == os.path.isdir(entry.path) & (not entry.is_symlink())
                assert entry.is_symlink() == os.path.islink(entry.path)


def test_a_rewound_listing_shows_what_came_since(root: Path) -> None:
    fd = os.open(root / "d", os.O_RDONLY | os.O_DIRECTORY)
    try:
        before = set(os.listdir(fd))  # rewinds at its end
        (root / "d/n").touch()
        (root / "d/f").unlink()
        assert set(os.listdir(fd)) == (before | {"n"}) - {"f"}
    finally:
        os.close(fd)


def test_symbolic_links_in_a_circle(root: Path) -> None:
    (root / "x").symlink_to("y")
    (root / "y").symlink_to("x")
    for call in (os.stat, os.listdir, lambda path: os.open(path, os.O_RDONLY), lambda path: os.truncate(path, 0)):
        with raises(errno.ELOOP):
            call(root / "x")
    with raises(errno.ELOOP):
        os.open(root / "s", os.O_RDONLY | os.O_NOFOLLOW)


def test_a_program_that_runs_is_not_written(root: Path) -> None:
    import shutil
    import subprocess

    shutil.copy("/bin/sleep", root / "n")
    with subprocess.Popen([root / "n", "1000"]) as running:
        try:
            with raises(errno.ETXTBSY):
                os.open(root / "n", os.O_WRONLY)
        finally:
            running.kill()
