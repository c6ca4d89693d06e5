"""``st_nlink`` of directories: that of the disk, or 1 where the tree and the upper both have a part in it."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.support.systems import SYSTEMS, System, opened, root, system
from unionfs import syscalls

__all__ = ["root", "system"]


def counts(root: Path) -> dict[str, tuple[int, int]]:
    """(st_nlink, directories in it) of each directory, by path."""
    found = {}
    for where, below, _ in os.walk(root):
        real = [name for name in below if stat.S_ISDIR(os.lstat(os.path.join(where, name)).st_mode)]
        found[os.path.relpath(where, root)] = os.stat(where).st_nlink, len(real)
    return found


def exact(path: Path) -> None:
    real = [entry for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)]
    assert path.stat().st_nlink == 2 + len(real), path


def right(root: Path) -> None:
    assert {path: count for path, count in counts(root).items() if count[0] not in (1, 2 + count[1])} == {}


def test_what_one_side_alone_has(system: System) -> None:
    root = system.root
    right(root)
    for name in ("d/e", "d/e/x", "empty"):  # in one layer, or above an opaque mark
        exact(root / name)


@pytest.mark.parametrize("system", [name for name in SYSTEMS if "image" in name], indirect=True)
def test_directories_of_an_image(root: Path) -> None:
    for name in ("d", "d/e", "m"):
        exact(root / name)


def test_what_is_new_in_the_upper(system: System) -> None:
    root = system.root
    new = root / "new"
    (new / "a/b").mkdir(parents=True)
    for name in ("c", "d"):
        (new / name).mkdir()
    (new / "file").touch()
    exact(new)
    for _ in range(2):
        for name in (new, new / "a", new / "c"):
            exact(name)
        system.remount()
    (new / "c").rename(new / "a/c")
    (new / "d").rmdir()
    for name in (new, new / "a", new / "a/c"):
        exact(name)
    other = root / "other"
    other.mkdir()
    with opened(root) as fd:
        syscalls.renameat2(fd, b"new/a/b", fd, b"new/file", syscalls.RENAME_EXCHANGE)
    (new / "a/c").rename(other / "c")
    for name in (new, new / "a", other):
        exact(name)
    with opened(other / "c", os.O_RDONLY | os.O_DIRECTORY) as fd:
        assert os.fstat(fd).st_nlink == 2
        (other / "c").rmdir()
        assert os.fstat(fd).st_nlink == 0
    exact(other)


def test_counts_stay_right_when_a_directory_begins_to_merge(system: System) -> None:
    root = system.root
    right(root)  # all of it is in the kernel's cache
    (root / "d/e/x/f").write_text("in the upper from now on")
    right(root)
    (root / "d/e/n").mkdir()
    (root / "d/e/n/o").mkdir()
    right(root)
    (root / "d/e/x").rename(root / "d/e/n/x")
    (root / "d/e").rename(root / "empty/e")
    right(root)
    exact(root / "empty/e/n")
    system.remount()
    right(root)


def test_find_finds_all(system: System) -> None:
    root = system.root
    for number in range(3):
        (root / f"d/e/n{number}/below/it").mkdir(parents=True)
    (root / "d/e/x").rename(root / "d/e/n1/x")
    expected = subprocess.run(["find", ".", "-noleaf", "-type", "d"], cwd=root, check=True, capture_output=True).stdout
    found = subprocess.run(["find", ".", "-type", "d"], cwd=root, check=True, capture_output=True).stdout
    assert sorted(found.splitlines()) == sorted(expected.splitlines())
    assert len(found.splitlines()) == len(counts(root))
