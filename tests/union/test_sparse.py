"""A file of 40 GiB with 8 KiB of data: what copies it sees the holes, and so does copying up."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.content import LOWERS
from tests.support.mounted import Mounted
from tests.support.systems import opened
from unionfs.image.compiler import compile_image
from unionfs.image.tree import CompiledImage
from unionfs.live.directories import DirectoryStack
from unionfs.tree import Tree

SIZE, BLOCK = 40 << 30, 4096
DATA = [(10 << 30, (10 << 30) + BLOCK), (30 << 30, (30 << 30) + BLOCK)]


def _make(directory: Path) -> None:
    directory.mkdir()
    with opened(directory / "sparse", os.O_WRONLY | os.O_CREAT) as fd:
        for start, stop in DATA:
            os.pwrite(fd, b"x" * (stop - start), start)
        os.ftruncate(fd, SIZE)


def _opener(base: Path, kind: str) -> Callable[[], Tree]:
    _make(base / "lower")
    if kind == "directories":
        return lambda: DirectoryStack([os.fsencode(base / "lower")])
    tar = base / "layer.tar"
    subprocess.run(["tar", "--format=pax", "--sparse", "-cf", tar, "-C", base / "lower", "sparse"], check=True)
    compile_image([tar], base / "index")
    return lambda: CompiledImage(base / "index", [tar])


@pytest.fixture(params=LOWERS)
def mounted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mounted]:
    made = Mounted(tmp_path, _opener(tmp_path, request.param), "direct")
    made.mount()
    try:
        yield made
    finally:
        made.unmount()


def _data(path: Path) -> list[tuple[int, int]]:
    found, position = [], 0
    with opened(path) as fd:
        while True:
            try:
                start = os.lseek(fd, position, os.SEEK_DATA)
            except OSError:
                return found
            position = os.lseek(fd, start, os.SEEK_HOLE)
            found.append((start, position))


def test_holes_are_reported_and_kept(mounted: Mounted, tmp_path: Path) -> None:
    path = mounted.target / "sparse"
    assert (path.stat().st_size, path.stat().st_blocks) == (SIZE, 16)
    assert _data(path) == DATA
    subprocess.run(["cp", "--sparse=always", path, tmp_path / "copy"], check=True, timeout=60)
    assert _data(tmp_path / "copy") == DATA
    subprocess.run(["tar", "-Scf", tmp_path / "tar", "-C", mounted.target, "sparse"], check=True, timeout=60)
    assert (tmp_path / "tar").stat().st_size < 1 << 20


def test_appending_keeps_them(mounted: Mounted) -> None:
    with open(mounted.target / "sparse", "ab") as file:
        file.write(b"x" * BLOCK)
    assert _data(mounted.target / "sparse") == [*DATA, (SIZE, SIZE + BLOCK)]
    assert (mounted.upper / "sparse").stat().st_blocks == 24
