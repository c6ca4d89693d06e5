"""Hard links whose names lie in several layers of a stack: one file, however it is reached or changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mounted import Mounted
from unionfs.live.directories import DirectoryStack
from unionfs.serve import ENGINES

NAMES = ["d/bottom", "d/other", "top", "d/top"]


@pytest.fixture(params=ENGINES)
def linked(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Mounted]:
    """One file with two names in each of two layers, and a name that the upper of both hides."""
    top, bottom = tmp_path / "top", tmp_path / "bottom"
    for layer in (top, bottom):
        (layer / "d").mkdir(parents=True)
    (bottom / "d/bottom").write_text("one file")
    for name in (bottom / "d/other", top / "top", top / "d/top"):
        os.link(bottom / "d/bottom", name)
    mounted = Mounted(tmp_path, lambda: DirectoryStack([os.fsencode(top), os.fsencode(bottom)]), request.param)
    mounted.mount()
    try:
        yield mounted
    finally:
        mounted.unmount()


def all_show(mounted: Mounted, names: list[str], text: str) -> None:
    seen = [os.stat(mounted.target / name) for name in names]
    assert len({status.st_ino for status in seen}) == 1
    assert [status.st_nlink for status in seen] == [len(names)] * len(names)
    assert [(mounted.target / name).read_text() for name in names] == [text] * len(names)


@pytest.mark.parametrize("written", NAMES)
def test_one_file_before_and_after_copy_up(linked: Mounted, written: str) -> None:
    all_show(linked, NAMES, "one file")
    with (linked.target / "d/other").open() as held:
        (linked.target / written).write_text("written")
        assert held.read() == "written"
    all_show(linked, NAMES, "written")
    linked.unmount()
    linked.mount()
    all_show(linked, NAMES, "written")


@pytest.mark.parametrize("removed", NAMES)
def test_counts_when_names_go_and_come(linked: Mounted, removed: str) -> None:
    left = [name for name in NAMES if name != removed]
    (linked.target / removed).unlink()
    all_show(linked, left, "one file")
    linked.unmount()
    linked.mount()
    all_show(linked, left, "one file")
    (linked.target / left[0]).write_text("written")
    os.link(linked.target / left[1], linked.target / "new")
    os.rename(linked.target / left[2], linked.target / "renamed")
    all_show(linked, [left[0], left[1], "new", "renamed"], "written")
    linked.unmount()
    linked.mount()
    all_show(linked, [left[0], left[1], "new", "renamed"], "written")
    for name in (left[0], "new", "renamed"):
        (linked.target / name).unlink()
    all_show(linked, [left[1]], "written")
