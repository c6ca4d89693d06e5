"""How layers make one tree: OCI image-spec, layer.md, by example and against a model of paths."""

from __future__ import annotations

import random
import stat
import tarfile
from pathlib import Path

import pytest

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
        {"d/": "700", "d/new": ""},
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
    "file replaced by directory": (
        [[regular("a", b"1")], [directory("a"), regular("a/b", b"2")]],
        {"a/": "755", "a/b": "2"},
    ),
    "directory replaced by file": ([[regular("a/b/c")], [regular("a", b"2")]], {"a": "2"}),
    "directory replaced by symlink": ([[regular("a/b/c")], [symlink("a", "x")]], {"a": "x"}),
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
    "file, directory, file": ([[regular("a"), directory("a"), regular("a/b"), regular("a", b"3")]], {"a": "3"}),
    "spellings of one name": (
        [[regular("./a", b"1"), regular(".//./a", b"2"), directory("d//"), regular("d/./x"), regular("./d//y")]],
        {"a": "2", "d/": "755", "d/x": "", "d/y": ""},
    ),
    "link to a lower file": ([[regular("a", b"1")], [hardlink("b", "a")]], {"a": "1", "b": "1"}),
    "link before a target that replaces a lower file": (
        [[regular("a", b"1")], [hardlink("b", "a"), regular("a", b"2")]],
        {"a": "2", "b": "1"},
    ),
    "link, then its target listed again": (
        [[regular("a", b"1"), hardlink("b", "a"), regular("a", b"2")]],
        {"a": "2", "b": "1"},
    ),
    "link to itself": ([[regular("a", b"1"), hardlink("a", "a")]], {"a": "1"}),
    "link to a lower symlink": ([[symlink("a", "t")], [hardlink("b", "a")]], {"a": "t", "b": "t"}),
    "link replaces a directory": ([[regular("d/x"), regular("a", b"1")], [hardlink("d", "a")]], {"a": "1", "d": "1"}),
    "link to a lower file, both whited out after it": (
        [[regular("a", b"1"), regular("b", b"2")], [hardlink("b", "./a"), regular(".wh.b"), regular(".wh.a")]],
        {"b": "1"},
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


def test_the_order_of_marks_and_content_does_not_matter(tmp_path: Path) -> None:
    lower = [regular("d/a", b"1"), regular("d/e/b", b"2"), directory("i/f"), regular("i/f/y"), regular("g/h", b"4")]
    upper = [
        directory("d", mode=0o700),
        regular("d/.wh..wh..opq"),
        regular("d/new", b"5"),
        regular("i/.wh.f"),
        hardlink("link", "g/h"),
        regular("g/.wh.none"),
        item("g/fifo", tarfile.FIFOTYPE),
        directory("i/f", mode=0o711),
        regular("i/f/x"),
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
