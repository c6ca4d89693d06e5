"""Copying directories by descriptors, on an ordinary file system."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from launcher.container.removal import remove_tree
from launcher.sandbox.copying import copy_contents

DEPTH = 1500  # levels: deeper than Python recurses, longer than PATH_MAX, more than a process may open files


def copied(source: Path, target: Path) -> None:
    target.mkdir()
    ends = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (source, target)]
    copy_contents(ends[0], ends[1])
    for end in ends:
        os.close(end)


def depth(top: Path) -> int:
    found, here = 0, os.open(top, os.O_RDONLY)
    while names := os.listdir(here):
        there = os.open(names[0], os.O_RDONLY, dir_fd=here)
        os.close(here)
        found, here = found + 1, there
    os.close(here)
    return found


def test_deeper_than_a_path_can_be(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    here = os.open(source, os.O_RDONLY)
    for _ in range(DEPTH):
        os.mkdir("directory", dir_fd=here)
        there = os.open("directory", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = there
    os.close(here)
    try:
        copied(source, tmp_path / "target")
        assert depth(tmp_path / "target") == DEPTH
    finally:  # pytest cannot
        remove_tree(os.fspath(source))
        remove_tree(os.fspath(tmp_path / "target"))


def test_holes_links_and_times(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "a/b").mkdir(parents=True)
    with open(source / "a/sparse", "wb") as file:
        file.seek(1 << 30)
        file.write(b"end")
        file.truncate(1 << 31)
    os.link(source / "a/sparse", source / "a/b/other")
    (source / "a/dangling").symlink_to("nowhere")
    os.utime(source / "a/b", ns=(1, 2))
    os.utime(source / "a", ns=(3, 4))
    copied(source, target)
    state = (target / "a/sparse").stat()
    assert (state.st_size, state.st_nlink) == (1 << 31, 2)
    assert state.st_blocks * 512 < 1 << 20
    with open(target / "a/b/other", "rb") as file:
        file.seek((1 << 30) - 1)
        assert file.read(5) == b"\0end\0"
    assert os.readlink(target / "a/dangling") == "nowhere"
    assert [(target / name).stat().st_mtime_ns for name in ("a", "a/b")] == [4, 2]


def test_what_is_there_already_is_never_overwritten(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    (source / "file").write_text("new")
    target.mkdir()
    (target / "file").symlink_to(source / "elsewhere")
    ends = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (source, target)]
    with pytest.raises(FileExistsError):
        copy_contents(ends[0], ends[1])
    for end in ends:
        os.close(end)
    assert os.listdir(source) == ["file"]
