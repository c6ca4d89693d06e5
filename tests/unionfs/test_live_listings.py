"""READDIRPLUS of live directories where the listing does not simply go from the beginning to the end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unionfs.directories import DirectoryStack
from unionfs.fuse import wire
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
    assert names(trees[1].listing(ROOT, 5, 1 << 16)) == everything[7:]
    for tree in trees:
        tree.close()


def test_what_vanished_since_it_was_listed_does_not_show(layers: list[Path]) -> None:
    tree = DirectoryStack([os.fsencode(layer) for layer in layers], timeout=60.0)
    first = names(tree.listing(ROOT, 0, 5 * RECORD))
    assert len(first) == 5
    gone, *left = set(b"f%d" % number for number in range(FILES)) - set(first)
    for layer in layers:
        (layer / os.fsdecode(gone)).unlink(missing_ok=True)
    assert set(names(tree.listing(ROOT, 3, 1 << 16))) == set(left)
    tree.close()
