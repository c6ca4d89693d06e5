"""Directories with many names, long names and odd names: the work is linear, and nothing is missed or repeated."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mounted import Mounted
from unionfs.live.directories import DirectoryStack
from unionfs.nodes import UNRESOLVED, Directory, Node
from unionfs.open import open_union
from unionfs.serve import ENGINES
from unionfs.tree import Entry
from unionfs.union import Union

PLACES = ["lower", "upper", "merged"]
MANY = 3000


def fill(directory: Path, numbers: range) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    fd = os.open(directory, os.O_RDONLY)
    for number in numbers:
        os.close(os.open(f"name{number}", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)


class Large:
    """A mount with a directory of `MANY` names in it, of the lower, the upper or both."""

    def __init__(self, base: Path, place: str, engine: str) -> None:
        lower = base / "lower"
        lower.mkdir()
        self.mounted = Mounted(base, lambda: DirectoryStack([os.fsencode(lower)]), engine)
        if place != "upper":
            fill(lower / "d", range(MANY if place == "lower" else MANY // 2))
        if place != "lower":
            fill(self.mounted.upper / "d", range(0 if place == "upper" else MANY // 3, MANY))
        self.directory = self.mounted.target / "d"


@pytest.fixture(params=[(place, engine) for place in PLACES for engine in ENGINES], ids="-".join)
def large(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Large]:
    made = Large(tmp_path, *request.param)
    made.mounted.mount()
    try:
        yield made
    finally:
        made.mounted.unmount()


def test_deleting_while_reading(large: Large) -> None:
    """As rm -r does it: every name is seen once, and nothing is left."""
    seen = []
    with os.scandir(large.directory) as entries:
        for entry in entries:
            seen.append(entry.name)
            os.unlink(entry.path)
    assert sorted(seen) == sorted(f"name{number}" for number in range(MANY))
    assert os.listdir(large.directory) == []
    large.directory.rmdir()


def test_creating_and_renaming_while_reading(large: Large) -> None:
    """What stays is seen exactly once; what is new or renamed at most once under each of its names."""
    seen = []
    with os.scandir(large.directory) as entries:
        for count, entry in enumerate(entries):
            seen.append(entry.name)
            if count < 500:
                (large.directory / f"new{count}").touch()
                os.rename(large.directory / f"name{MANY - 1 - count}", large.directory / f"moved{count}")
    assert len(set(seen)) == len(seen)
    stay = {f"name{number}" for number in range(MANY - 500)}
    assert stay <= set(seen)
    after = os.listdir(large.directory)
    assert len(set(after)) == len(after) == MANY + 500


def test_renaming_each_name_when_it_is_read(large: Large) -> None:
    """As xfstests' generic/736 does: the listing ends, and shows no more entries than there were names."""
    many, away = 300, 0  # each name of the lower is copied up
    for back in (True, False):
        before, seen = set(os.listdir(large.directory)), []
        with os.scandir(large.directory) as entries:
            for entry in entries:
                seen.append(entry.name)
                assert len(seen) <= MANY
                if len(seen) % (MANY // many):
                    continue
                away += 1
                os.rename(entry.path, large.directory / f"moved{away}")
                if back:
                    os.rename(large.directory / f"moved{away}", entry.path)
                if not len(seen) % (MANY // 3):  # somebody else begins anew meanwhile
                    assert len(os.listdir(large.directory)) == MANY
        assert sorted(seen) == sorted(before)
        assert len(os.listdir(large.directory)) == MANY


def test_files_that_came_and_went_leave_nothing() -> None:
    """A mail queue: neither memory nor what a listing has to pass grows with the files that there once were."""
    directory = Directory(2, 2, None, 0)
    directory.names = {}
    directory.set(b"stays", UNRESOLVED, in_tree=False)

    def come_and_go(count: int, at_once: int) -> None:
        for number in range(count + at_once):
            if number < count:
                directory.set(b"m%d" % number, number + 3, in_tree=False)
            if number >= at_once:
                directory.drop(b"m%d" % (number - at_once))

    tracemalloc.start()
    come_and_go(10_000, 100)
    come_and_go(10_000, 10_000)
    grown, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < most / 10
    assert [name for name, _ in directory.extras(0)] == [b"stays"]


class Compared(bytes):
    """A name that counts how often it is compared."""

    times = 0

    def __eq__(self, other: object) -> bool:
        Compared.times += 1
        return bytes.__eq__(self, other)  # type: ignore[arg-type]

    __hash__ = bytes.__hash__


def test_a_file_of_many_names_is_no_list_to_search() -> None:
    """As LTP's linkat02 gives a file all names that it may have, and takes them."""
    directory, file = Directory(2, 2, None, 0), Node(3, 3, None)
    names = [Compared(b"%d" % number) for number in range(2_000)]
    Compared.times = 0
    for name in names:
        file.add_name(directory, name)
    for name in names:
        assert not file.removed
        file.drop_name(directory, name)
    assert file.removed
    assert Compared.times < 10 * len(names)


@pytest.mark.parametrize("engine", ENGINES)
def test_long_and_odd_names(tmp_path: Path, engine: str) -> None:
    lower = tmp_path / "lower"
    lower.mkdir()
    mounted = Mounted(tmp_path, lambda: DirectoryStack([os.fsencode(lower)]), engine)
    odd = [bytes([byte]) * 3 for byte in range(1, 256) if byte not in b"/."] + [b"\xff" * 255, b"...", b"new\nline"]
    for name in odd:
        os.close(os.open(os.fsencode(lower) + b"/" + name, os.O_CREAT | os.O_WRONLY))
    mounted.mount()
    try:
        target = os.fsencode(mounted.target)
        assert sorted(os.listdir(target)) == sorted(odd)
        for name in odd:
            os.rename(target + b"/" + name, target + b"/" + name[:-1] + b"~")
        changed = sorted({name[:-1] + b"~" for name in odd})
        assert sorted(os.listdir(target)) == changed
        deep = target
        while len(deep) + 201 < 4095:
            deep += b"/" + b"n" * 200
            os.mkdir(deep)
        deep += b"/" + b"f" * (4094 - len(deep))
        with open(deep, "wb") as file:
            file.write(b"deep")
        with open(deep, "rb") as file:
            assert (len(deep), file.read()) == (4095, b"deep")
    finally:
        mounted.unmount()


class Counted(DirectoryStack):
    """Counts the entries that listings took from it and its readings of whole directories."""

    taken = scans = 0

    def entries(self, node: int, cookie: int = 0) -> Iterator[Entry]:
        self.scans += not cookie
        for entry in super().entries(node, cookie):
            self.taken += 1
            yield entry


@pytest.mark.parametrize("place", PLACES)
def test_work_is_linear(tmp_path: Path, place: str) -> None:
    """Listing in small replies, then deleting all: each name is handed over about once, each time."""
    large = Large(tmp_path, place, "direct")
    tree = Counted([os.fsencode(tmp_path / "lower")])
    union = open_union(tree, os.fsencode(large.mounted.upper), os.fsencode(large.mounted.work))
    try:
        node = int.from_bytes(union.lookup(1, b"d")[:8], "little")
        names = _listed(union, node)
        assert len(names) == MANY
        replies = MANY / 20
        assert tree.taken <= MANY + replies
        assert tree.scans <= 1
        for name in names:
            union.unlink(node, name)
        assert tree.scans <= 1
        assert _listed(union, node) == []
        assert tree.taken <= 3 * (MANY + replies)  # an empty listing asks twice: for ".", and for what follows
    finally:
        union.close()
        tree.close()


def _listed(union: Union, node: int) -> list[bytes]:
    """All names, some twenty with each READDIRPLUS."""
    names: list[bytes] = []
    cookie = 0
    while True:
        reply = bytes(union.listing(node, cookie, 4096))
        if not reply:
            return [name for name in names if name not in (b".", b"..")]
        at = 0
        while at < len(reply):
            cookie = int.from_bytes(reply[at + 136 : at + 144], "little")
            length = int.from_bytes(reply[at + 144 : at + 148], "little")
            names.append(reply[at + 152 : at + 152 + length])
            at += (152 + length + 7) // 8 * 8
