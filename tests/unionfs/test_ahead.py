"""Listings that are read ahead: the same as without, bounded, and only in a walk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from unionfs.live.directories import DirectoryStack
from unionfs.tree import ROOT

FILES = 300
SIZE = 1 << 20


@pytest.fixture
def lower(tmp_path: Path) -> Path:
    """a/b, a/c and a/d with many files each."""
    for name in "bcd":
        (tmp_path / "a" / name).mkdir(parents=True)
        for number in range(FILES):
            (tmp_path / "a" / name / f"{number}").touch()
    return tmp_path


@pytest.fixture
def tree(lower: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DirectoryStack]:
    """All trees of a test have one generation, so that their answers can be compared."""
    monkeypatch.setattr("unionfs.live.directories.new_generation", lambda: 7)
    tree = DirectoryStack([os.fsencode(lower)])
    yield tree
    tree.close()


def finish(tree: DirectoryStack) -> int:
    """How many pieces of work there were."""
    return sum(1 for _ in iter(tree.ahead, False))


def listed(tree: DirectoryStack, node: int) -> bytes:
    return bytes(tree.listing(node, 0, SIZE) or b"")


def below(tree: DirectoryStack, name: bytes) -> int:
    return tree.lookup(tree.lookup(ROOT, b"a"), name)


def test_what_was_read_ahead_is_what_is_there(tree: DirectoryStack, lower: Path) -> None:
    with_nothing_ahead = DirectoryStack([os.fsencode(lower)])
    answers = []
    for each, work in ((tree, True), (with_nothing_ahead, False)):
        listed(each, ROOT)
        listed(each, each.lookup(ROOT, b"a"))
        assert not work or finish(each) > FILES // 2
        answers.append([listed(each, below(each, name)) for name in (b"b", b"c", b"d")])
    with_nothing_ahead.close()
    assert answers[0] == answers[1]
    assert len(answers[0][0]) > FILES * 152


def test_one_look_reads_nothing_ahead(tree: DirectoryStack) -> None:
    listed(tree, tree.lookup(ROOT, b"a"))
    assert finish(tree) == 0


def test_a_directory_that_is_listed_again_and_again_is_read_ahead_once(tree: DirectoryStack) -> None:
    listed(tree, ROOT)
    above = tree.lookup(ROOT, b"a")
    work = []
    for _ in range(6):
        listed(tree, above)
        work.append(finish(tree))
    assert work[0] > 10 * sum(work[1:])
    assert len(listed(tree, below(tree, b"b"))) > FILES * 152


def test_what_is_asked_for_in_the_middle_of_reading_ahead_is_complete(tree: DirectoryStack) -> None:
    listed(tree, ROOT)
    listed(tree, tree.lookup(ROOT, b"a"))
    for _ in range(20):
        assert tree.ahead()
    assert len(listed(tree, below(tree, b"b"))) > FILES * 152
    finish(tree)


def test_directories_that_may_change_are_not_read_ahead(lower: Path) -> None:
    tree = DirectoryStack([os.fsencode(lower)], timeout=1.0)
    listed(tree, ROOT)
    listed(tree, tree.lookup(ROOT, b"a"))
    assert finish(tree) == 0
    tree.close()
