"""How layers make one tree: OCI image-spec, layer.md, by example and against a model of paths."""

from __future__ import annotations

import random
import stat
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unionfs.compiled_image_support import (
    Item,
    directory,
    find,
    hardlink,
    image,
    item,
    node,
    pack,
    read,
    regular,
    rows,
    snapshot,
    symlink,
)
from unionfs.image.compiler import LayerError


def shown(tmp_path: Path, *layers: list[Item]) -> dict[str, str]:
    """Path to content; directories end in "/" and have their mode."""
    with image(tmp_path, *layers) as tree:
        found = {}
        for path, item_ in snapshot(tree).items():
            if stat.S_ISDIR(item_.mode):
                found[path.decode() + "/"] = f"{item_.mode & 0o7777:o}"
            else:
                found[path.decode()] = item_.content.decode()
        return found


CASES: dict[str, tuple[list[list[Item]], dict[str, str]]] = {
    "whiteout of a file": ([[regular("a"), regular("b")], [regular(".wh.a")]], {"b": ""}),
    "whiteout of a directory": ([[regular("d/a/x"), regular("d/b")], [regular("d/.wh.a")]], {"d/": "755", "d/b": ""}),
    "whiteout as a directory member": ([[regular("a")], [directory(".wh.a/")]], {}),
    "whiteout acts on lower layers only": (
        [[regular("a", b"low")], [regular("a", b"new"), regular(".wh.a")]],
        {"a": "new"},
    ),
    "whiteout before and content below it": (
        [[directory("d", mode=0o700), regular("d/old")], [regular(".wh.d"), regular("d/new")]],
        {"d/": "755", "d/new": ""},
    ),
    "whiteout after the content below it": (
        [[directory("d", mode=0o700), regular("d/old")], [regular("d/new"), regular(".wh.d")]],
        {"d/": "755", "d/new": ""},
    ),
    "whiteout of nothing makes nothing": ([[regular("a")], [regular("x/y/.wh.a")]], {"a": ""}),
    "whiteout below a file": ([[regular("a", b"1")], [regular("a/.wh.b")]], {"a": "1"}),
    "whiteout in the lowest layer": ([[regular("a"), regular(".wh.a")]], {"a": ""}),
    "whiteout survives no further layer": ([[regular("a")], [regular(".wh.a")], [regular("a", b"3")]], {"a": "3"}),
    "opaque first": (
        [[regular("d/a"), regular("d/s/b")], [regular("d/.wh..wh..opq"), regular("d/c")]],
        {"d/": "755", "d/c": ""},
    ),
    "opaque last": (
        [
            [regular("d/a"), regular("d/s/b")],
            [directory("d", mode=0o711), regular("d/a", b"2"), regular("d/.wh..wh..opq")],
        ],
        {"d/": "711", "d/a": "2"},
    ),
    "opaque root": ([[regular("a"), regular("d/b")], [regular(".wh..wh..opq"), regular("c")]], {"c": ""}),
    "opaque keeps the attributes of an implied directory": (
        [[directory("d", mode=0o700), regular("d/a")], [regular("d/.wh..wh..opq"), regular("d/b")]],
        {"d/": "700", "d/b": ""},
    ),
    "other names of AUFS say nothing": (
        [[regular(".wh..wh.plnk/12.3"), regular(".wh..wh.orph"), regular("a")]],
        {"a": ""},
    ),
    "file replaced by directory": ([[regular("a", b"1")], [regular("a/b", b"2")]], {"a/": "755", "a/b": "2"}),
    "directory replaced by file": ([[regular("a/b/c")], [regular("a", b"2")]], {"a": "2"}),
    "directory replaced by symlink": ([[regular("a/b/c")], [symlink("a", "x")]], {"a": "x"}),
    "a lower symlink is not followed": (
        [[regular("usr/lib/a"), symlink("lib", "usr/lib")], [regular("lib/b")]],
        {"usr/": "755", "usr/lib/": "755", "usr/lib/a": "", "lib/": "755", "lib/b": ""},
    ),
    "a symlink of the same layer is not followed": (
        [[symlink("x", "/etc"), regular("etc/a"), regular("x/b")]],
        {"etc/": "755", "etc/a": "", "x/": "755", "x/b": ""},
    ),
    "directory over directory": (
        [[directory("d", mode=0o700), regular("d/a")], [directory("d", mode=0o711), regular("d/b")]],
        {"d/": "711", "d/a": "", "d/b": ""},
    ),
    "implied over directory keeps attributes": (
        [[directory("d", mode=0o700), regular("d/a")], [regular("d/b")]],
        {"d/": "700", "d/a": "", "d/b": ""},
    ),
    "listed after what is in it": ([[regular("d/a"), directory("d", mode=0o700)]], {"d/": "700", "d/a": ""}),
    "listed twice": ([[regular("a", b"1"), regular("a", b"2")]], {"a": "2"}),
    "directory listed twice": (
        [[directory("d", mode=0o700), regular("d/a"), directory("d", mode=0o711)]],
        {"d/": "711", "d/a": ""},
    ),
    "file, directory, file": ([[regular("a"), regular("a/b"), regular("a", b"3")]], {"a": "3"}),
    "spellings of one name": (
        [[regular("./a", b"1"), regular(".//./a", b"2"), directory("d//"), regular("d/./x"), regular("./d//y")]],
        {"a": "2", "d/": "755", "d/x": "", "d/y": ""},
    ),
    "link to a lower file": ([[regular("a", b"1")], [hardlink("b", "a")]], {"a": "1", "b": "1"}),
    "link before its target": ([[hardlink("b", "./a"), regular("a", b"1")]], {"a": "1", "b": "1"}),
    "link before a target that replaces a lower file": (
        [[regular("a", b"1")], [hardlink("b", "a"), regular("a", b"2")]],
        {"a": "2", "b": "1"},
    ),
    "link, then its target listed again": (
        [[regular("a", b"1"), hardlink("b", "a"), regular("a", b"2")]],
        {"a": "2", "b": "1"},
    ),
    "chain of links before the target": (
        [[hardlink("c", "b"), hardlink("b", "a"), hardlink("d", "c"), regular("a", b"1")]],
        {"a": "1", "b": "1", "c": "1", "d": "1"},
    ),
    "link to itself": ([[regular("a", b"1"), hardlink("a", "a")]], {"a": "1"}),
    "link to a lower symlink": ([[symlink("a", "t")], [hardlink("b", "a")]], {"a": "t", "b": "t"}),
    "link replaces a directory": ([[regular("d/x"), regular("a", b"1")], [hardlink("d", "a")]], {"a": "1", "d": "1"}),
    "waiting link in a directory listed again": (
        [[hardlink("d/b", "a"), directory("d", mode=0o700), regular("a", b"1")]],
        {"d/": "700", "d/b": "1", "a": "1"},
    ),
    "link, its target whited out later": (
        [[regular("a", b"1")], [hardlink("b", "a")], [regular(".wh.a")]],
        {"b": "1"},
    ),
    "no layers": ([], {}),
    "empty layers": ([[], []], {}),
}


@pytest.mark.parametrize("case", CASES)
def test_layers(tmp_path: Path, case: str) -> None:
    layers, expected = CASES[case]
    found = shown(tmp_path, *layers)
    assert found.pop("/") == "755"
    assert found == expected


def test_the_root_takes_the_attributes_of_the_last_layer_that_lists_it(tmp_path: Path) -> None:
    layers = [directory("./", mode=0o700, uid=1)], [regular("a")], [directory("/", mode=0o711, uid=2)], [regular("b")]
    with image(tmp_path, *layers) as tree:
        assert node(tree, 1)[:2] == (stat.S_IFDIR | 0o711, 2)
        assert sorted(rows(tree)) == [b"", b"a", b"b"]


def test_link_counts_say_what_is_visible(tmp_path: Path) -> None:
    lower = [regular("a"), hardlink("b", "a"), hardlink("c", "a")]
    with image(tmp_path, lower, [regular(".wh.a")], [hardlink("d", "c"), regular("b", b"new")]) as tree:
        assert node(tree, find(tree, b"c")).nlink == 2
        assert node(tree, find(tree, b"b")).nlink == 1
        assert find(tree, b"c") == find(tree, b"d")
        assert sorted(tree.names(find(tree, b"c"))) == [(1, b"c"), (1, b"d")]


def test_an_implied_directory_keeps_lower_xattrs_and_a_listed_one_does_not(tmp_path: Path) -> None:
    marked = directory("d")
    marked[0].pax_headers = {"SCHILY.xattr.user.a": "1"}
    with image(tmp_path, [marked], [regular("d/x")]) as tree:
        assert tree.xattrs(find(tree, b"d")) == {b"user.a": b"1"}
    with image(tmp_path, [marked], [regular("d/x")], [directory("d")]) as tree:
        assert tree.xattrs(find(tree, b"d")) == {}


# A model that shares nothing with the compiler: a dictionary of whole paths, layer after layer.

NAMES = ("a", "b", "c")
Key = tuple[str, ...]


@dataclass(eq=False)
class Thing:
    """An inode of the model; identity is what hard links share."""

    label: str  # "dir" or content
    mode: int
    target: Key | None = None  # of a link not resolved yet
    becomes: Thing | None = None
    implied: bool = False  # a directory that the layer does not list


class Refused(Exception):
    """The model expects a LayerError."""


@dataclass
class Op:
    verb: str
    path: Key
    target: Key = ()
    number: int = 0

    def member(self) -> Item:
        name = "/".join(self.path)
        if self.verb == "file":
            return regular(name, f"{self.number}".encode(), mode=self.number & 0o777)
        if self.verb == "dir":
            return directory(name, mode=self.number & 0o777)
        if self.verb == "symlink":
            return symlink(name, f"t{self.number}")
        if self.verb == "link":
            return hardlink(name, "/".join(self.target))
        if self.verb == "opaque":
            return regular(f"{name}/.wh..wh..opq")
        return regular("/".join([*self.path[:-1], f".wh.{self.path[-1]}"]))


def below(path: Key, tree: dict[Key, Thing]) -> Iterator[Key]:
    return iter([other for other in tree if other[: len(path)] == path and other != path])


def remove(path: Key, tree: dict[Key, Thing]) -> None:
    for other in below(path, tree):
        del tree[other]
    tree.pop(path, None)


def own_tree(layer: list[Op]) -> tuple[dict[Key, Thing], list[Thing]]:
    """What the layer itself has, and the links that wait."""
    own: dict[Key, Thing] = {}
    waiting = []
    for op in layer:
        if op.verb in ("whiteout", "opaque"):
            continue
        for length in range(1, len(op.path)):
            parent = op.path[:length]
            if parent not in own or own[parent].label != "dir":
                remove(parent, own)
                own[parent] = Thing("dir", 0o755, implied=True)
        if op.verb == "dir":
            if op.path in own and own[op.path].label != "dir":
                remove(op.path, own)
            own[op.path] = Thing("dir", op.number & 0o777)
            continue
        if op.verb == "link":
            thing = own.get(op.target)
            if thing is None:
                thing = Thing("?", 0, op.target)
                waiting.append(thing)
            elif thing.label == "dir":
                raise Refused
        else:
            label = f"t{op.number}" if op.verb == "symlink" else f"{op.number}"
            thing = Thing(label, 0o777 if op.verb == "symlink" else op.number & 0o777)
        remove(op.path, own)
        own[op.path] = thing
    return own, waiting


def model(layers: list[list[Op]]) -> dict[Key, Thing]:
    lower: dict[Key, Thing] = {}
    for layer in layers:
        own, waiting = own_tree(layer)
        for op in layer:
            if op.verb == "whiteout":
                remove(op.path, lower)
            elif op.verb == "opaque":
                for path in below(op.path, lower):
                    del lower[path]
        for thing in waiting:
            assert thing.target is not None
            thing.becomes = lower.get(thing.target) or own.get(thing.target)
        for thing in waiting:
            seen: list[Thing] = []
            at: Thing | None = thing
            while at is not None and at.target is not None:
                if at in seen:
                    raise Refused
                seen.append(at)
                at = at.becomes
            if at is None or at.label == "dir":
                raise Refused
            thing.label, thing.mode = "link", 0
            thing.becomes, thing.target = at, None
        for path in sorted(own):
            thing = own[path].becomes or own[path]
            old = lower.get(path)
            if thing.label == "dir" and old is not None and old.label == "dir":
                if not thing.implied:
                    lower[path] = thing
                continue
            remove(path, lower)
            lower[path] = thing
    return lower


paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(tuple)
ops = st.builds(
    Op,
    st.sampled_from(["file", "file", "dir", "symlink", "link", "link", "whiteout", "opaque"]),
    paths,
    paths,
    st.integers(0, 0o777),
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(ops, max_size=8), max_size=4))
def test_layers_agree_with_the_model(layers: list[list[Op]]) -> None:
    for number, op in enumerate(op for layer in layers for op in layer):
        op.number = number + 0o100
    with tempfile.TemporaryDirectory() as folder:
        archives = [[op.member() for op in layer] for layer in layers]
        try:
            expected = model(layers)
        except Refused:
            with pytest.raises(LayerError, match="hard link to"), image(Path(folder), *archives):
                pass
            return
        with image(Path(folder), *archives) as tree:
            found = {tuple(path.decode().split("/")): row for path, row in rows(tree).items() if path}
            assert found.keys() == expected.keys()
            counts = Counter(id(thing) for thing in expected.values())
            seen: dict[int, int] = {}
            for path, thing in expected.items():
                shown = node(tree, found[path])
                label = "dir" if stat.S_ISDIR(shown.mode) else shown.content.decode()
                assert (label, shown.mode & 0o777) == (thing.label, thing.mode)
                assert shown.nlink == counts[id(thing)]
                assert seen.setdefault(id(thing), found[path]) == found[path]
            assert len(set(seen.values())) == len(seen)


def test_the_order_within_a_layer_does_not_matter(tmp_path: Path) -> None:
    lower = [regular("d/a", b"1"), regular("d/e/b", b"2"), regular("f", b"3"), regular("g/h", b"4")]
    upper = [
        directory("d", mode=0o700),
        regular("d/.wh..wh..opq"),
        regular("d/new", b"5"),
        regular(".wh.f"),
        hardlink("link", "g/h"),
        regular("g/.wh.none"),
        item("g/fifo", tarfile.FIFOTYPE),
        directory("f", mode=0o711),
        regular("f/x"),
    ]
    with image(tmp_path, lower, upper) as tree:
        expected = snapshot(tree), rows(tree)
    shuffle = random.Random(1)
    for _ in range(50):
        shuffle.shuffle(upper)
        with image(tmp_path, lower, upper) as tree:
            assert (snapshot(tree), rows(tree)) == expected


def test_the_upper_layer_supplies_the_content(tmp_path: Path) -> None:
    layers = [[regular(f"f{number}", b"%d" % layer) for number in range(layer, 5)] for layer in range(5)]
    with image(tmp_path, *layers) as tree:
        for number in range(5):
            assert read(tree, find(tree, b"f%d" % number)) == b"%d" % number


def test_a_last_block_that_is_not_filled_up_and_an_archive_without_an_end(tmp_path: Path) -> None:
    padded = pack([regular("a", b"1"), regular("b", b"new")])
    with image(tmp_path, padded[: 3 * 512 + 3]) as tree:
        assert read(tree, find(tree, b"b")) == b"new"
    with image(tmp_path, padded[: 4 * 512], b"") as tree:
        assert sorted(rows(tree)) == [b"", b"a", b"b"]
