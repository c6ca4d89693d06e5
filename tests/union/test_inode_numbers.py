"""st_ino of promoted files over layers of several devices."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mounted import Mounted
from unionfs.directories import DirectoryStack

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
        assert before[0] >= 1 << 48
        for name in NAMES:
            os.utime(mounted.target / name, (1, 1), follow_symlinks=False)
        assert numbers() == before
        mounted.unmount()
        mounted.mount()
        assert numbers() == before
    finally:
        mounted.unmount()
