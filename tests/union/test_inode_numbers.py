"""st_ino of promoted files over layers of several devices."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mounted import Mounted
from unionfs.live.directories import DirectoryStack

NAMES = ["f", "hard", "symlink", "d", "d/g", "k"]


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A directory on another device than the rest: on /dev/shm."""
    path = Path(tempfile.mkdtemp(prefix="ufs-test-", dir="/dev/shm"))
    yield path
    shutil.rmtree(path)


def test_numbers_survive_promotion_and_remount(tmp_path: Path, elsewhere: Path) -> None:
    (tmp_path / "low").mkdir()
    (tmp_path / "low/k").write_text("k")
    (elsewhere / "f").write_text("f")
    (elsewhere / "symlink").symlink_to("f")
    os.link(elsewhere / "f", elsewhere / "hard")
    (elsewhere / "d").mkdir()
    (elsewhere / "d/g").write_text("g")
    layers = [os.fsencode(tmp_path / "low"), os.fsencode(elsewhere)]
    mounted = Mounted(tmp_path, lambda: DirectoryStack(layers), "direct")

    def numbers() -> list[int]:
        return [os.lstat(mounted.target / name).st_ino for name in NAMES]

    mounted.mount()
    try:
        before = numbers()
        assert 1 << 31 <= before[0] < 1 << 32
        for name in NAMES:
            os.utime(mounted.target / name, (1, 1), follow_symlinks=False)
        assert numbers() == before
        mounted.unmount()
        mounted.mount()
        assert numbers() == before
    finally:
        mounted.unmount()


def test_numbers_of_several_devices_do_not_collide(tmp_path: Path, elsewhere: Path) -> None:
    """Files that have the same number on their devices; renamed, new and promoted ones; and d_ino is st_ino."""
    base = tmp_path / "low"
    (base / "merged").mkdir(parents=True)
    (elsewhere / "merged").mkdir()
    for layer in (base, elsewhere):
        for number in range(50):
            (layer / f"merged/{layer.name}{number}").touch()
    layers = [os.fsencode(base), os.fsencode(elsewhere)]
    mounted = Mounted(tmp_path, lambda: DirectoryStack(layers), "direct")
    directory = mounted.target / "merged"

    def numbers() -> dict[str, int]:
        with os.scandir(directory) as entries:
            listed = {entry.name: entry.inode() for entry in entries}
        assert listed == {name: os.lstat(directory / name).st_ino for name in listed}
        assert len(set(listed.values())) == len(listed)
        return listed

    mounted.mount()
    try:
        before = numbers()
        assert len(before) == 100
        for number in range(10):
            (directory / f"new{number}").touch()
            (directory / f"{elsewhere.name}{number}").chmod(0o600)
        (directory / f"{elsewhere.name}0").rename(directory / "renamed")
        (directory / f"{elsewhere.name}20").rename(directory / "renamed20")
        after = numbers()
        assert after.pop("renamed") == before.pop(f"{elsewhere.name}0")
        assert after.pop("renamed20") == before.pop(f"{elsewhere.name}20")
        assert before.items() <= after.items()
        shown = numbers()
        mounted.unmount()
        mounted.mount()
        assert numbers() == shown
    finally:
        mounted.unmount()
