"""READDIRPLUS of live directories where the listing does not simply go from the beginning to the end."""

from __future__ import annotations

import os
import stat
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.layers import make
from unionfs.fuse import wire
from unionfs.live.directories import DirectoryStack
from unionfs.tree import ROOT

RECORD = wire.ENTRY_SIZE + wire.DIRENT.size + 8  # with a name of up to eight bytes
FILES = 20


@pytest.fixture(params=[1, 3])
def layers(request: pytest.FixtureRequest, tmp_path: Path) -> list[Path]:
    """The files are spread over the layers."""
    made = [tmp_path / str(number) for number in range(request.param)]
    for layer in made:
        layer.mkdir()
    for number in range(FILES):
        (made[number % len(made)] / f"f{number}").touch()
    return made


def names(reply: bytes) -> list[bytes]:
    found = []
    while reply:
        length = wire.DIRENT.unpack_from(reply, wire.ENTRY_SIZE)[2]
        start = wire.ENTRY_SIZE + wire.DIRENT.size
        found.append(reply[start : start + length])
        reply = reply[start + length + -length % 8 :]
    return found


def test_a_listing_may_begin_anywhere(layers: list[Path]) -> None:
    """As seekdir(3) has it on a directory that was just opened."""
    trees = [DirectoryStack([os.fsencode(layer) for layer in layers]) for _ in range(2)]
    everything = names(trees[0].listing(ROOT, 0, 1 << 16))
    assert everything[:2] == [b".", b".."]
    assert sorted(everything[2:]) == sorted(b"f%d" % number for number in range(FILES))
    fifth = list(trees[0].entries(ROOT))[4]
    assert names(trees[1].listing(ROOT, fifth.cookie, 1 << 16)) == everything[7:]
    for tree in trees:
        tree.close()


def test_what_vanished_since_it_was_listed_does_not_show(layers: list[Path]) -> None:
    tree = DirectoryStack([os.fsencode(layer) for layer in layers], timeout=60.0)
    first = names(tree.listing(ROOT, 0, 5 * RECORD))
    assert len(first) == 5
    third = list(tree.entries(ROOT))[2]
    gone, *left = set(b"f%d" % number for number in range(FILES)) - set(first)
    for layer in layers:
        (layer / os.fsdecode(gone)).unlink(missing_ok=True)
    assert set(names(tree.listing(ROOT, third.cookie, 1 << 16))) == set(left)
    tree.close()


def test_lookups_from_a_listing_answer_as_those_from_layer_to_layer(tmp_path: Path) -> None:
    """Once a directory of several layers was asked often enough it is listed, whatever marks it has."""
    layers = [
        make(
            tmp_path / "top", ("file", "new", "top"), ("device", "hidden"), ("mark", ".wh.marked"),
            ("file", "both", "top"), ("dir", "merged"), ("dir", "opaque"),
            ("xattr", "opaque", "user.overlay.opaque", "y"),
            ("dir", "moved"), ("xattr", "moved", "user.overlay.redirect", "/old"), ("device", "old"),
        ),
        make(
            tmp_path / "middle", ("file", "hidden"), ("file", "marked"), ("file", "both", "middle"),
            ("file", "merged/middle"), ("file", "opaque/middle"), ("file", "old/within"), ("symlink", "link", "both"),
            ("file", "a-file-above-a-directory"),
        ),
        make(
            tmp_path / "bottom", ("file", "deep", "bottom"), ("file", "merged/bottom"), ("fifo", "pipe"),
            ("file", "a-file-above-a-directory/below"), ("dir", "marked"),
        ),
    ]  # fmt: skip
    asked = ["new", "hidden", "marked", "both", "merged", "opaque", "moved", "old", "link", "deep", "pipe", "absent"]
    asked += ["a-file-above-a-directory"]

    def answers(tree: DirectoryStack, name: str, before: int) -> list[object]:
        """What a name means after so many questions, and what is below it."""
        for number in range(before):
            tree.contains(ROOT, b"absent-%d" % number)
        node = tree.lookup(ROOT, os.fsencode(name))
        if not node:
            return []
        attr = wire.Attr.unpack(tree.attr(node))
        below = sorted(entry.name for entry in tree.entries(node)) if stat.S_ISDIR(attr.mode) else []
        return [attr.ino, attr.mode, attr.size, *below]

    for name in asked:
        with closing(DirectoryStack(layers)) as fresh, closing(DirectoryStack(layers)) as listed:
            assert answers(fresh, name, 0) == answers(listed, name, 20), name
