"""Members whose directory is reached through a symbolic link: each case compiled, and unpacked by umoci."""

from __future__ import annotations

import stat
import tarfile
from pathlib import Path

import pytest

from tests.unionfs.compiled_image_support import (
    Item,
    Node,
    directory,
    disk_snapshot,
    hardlink,
    image,
    item,
    regular,
    rows,
    snapshot,
    symlink,
)
from tests.unionfs.umoci_support import unpack
from unionfs.image.compiler import LayerError

USR = [regular("usr/lib/x", b"1"), regular("usr/lib/s/y", b"2"), symlink("lib", "usr/lib")]

CASES: dict[str, tuple[list[list[Item]], str]] = {
    "in a lower layer": ([USR, [regular("lib/f")]], "lib usr/ usr/lib/ usr/lib/f usr/lib/s/ usr/lib/s/y usr/lib/x"),
    "earlier in the layer": ([[symlink("lib", "usr/lib"), regular("lib/f")]], "lib usr/ usr/lib/ usr/lib/f"),
    "later in the layer": ([[regular("lib/f"), symlink("lib", "usr/lib")]], "lib"),
    "absolute": ([[symlink("lib", "/usr//./lib/"), regular("lib/f")]], "lib usr/ usr/lib/ usr/lib/f"),
    "above the root": ([[symlink("a/l", "../../../../../u"), regular("a/l/f")]], "a/ a/l u/ u/f"),
    "to the root": ([[symlink("a/l", "/"), regular("a/l/f")]], "a/ a/l f"),
    "to its own directory": ([[symlink("a/l", "."), regular("a/l/l/l/f")]], "a/ a/f a/l"),
    "dangling": ([[symlink("l", "no/such"), regular("l/d/f")]], "l no/ no/such/ no/such/d/ no/such/d/f"),
    "back from where a link led": (
        [[directory("u/v/w"), symlink("x", "u/v/w"), symlink("l", "x/../y"), regular("l/f")]],
        "l u/ u/v/ u/v/w/ u/v/y/ u/v/y/f x",
    ),
    "back from nothing": ([[symlink("l", "no/../y"), regular("l/f")]], "l y/ y/f"),
    "back from a file": ([[regular("f"), symlink("l", "f/../y"), regular("l/f")]], "f l y/ y/f"),
    "a chain of 40": (
        [[*(symlink(f"s{number}", f"s{number + 1}") for number in range(40)), directory("s40"), regular("s0/x")]],
        " ".join(sorted([*(f"s{number}" for number in range(40)), "s40/", "s40/x"])),
    ),
    "replaced by a directory": (
        [USR, [directory("lib"), regular("lib/f")]],
        "lib/ lib/f usr/ usr/lib/ usr/lib/s/ usr/lib/s/y usr/lib/x",
    ),
    "replaced by a directory afterwards": (
        [USR, [regular("lib/f"), directory("lib")]],
        "lib/ usr/ usr/lib/ usr/lib/f usr/lib/s/ usr/lib/s/y usr/lib/x",
    ),
    "replaced by a directory with an opaque mark": (
        [USR, [directory("lib"), regular("lib/.wh..wh..opq")]],
        "lib/ usr/ usr/lib/ usr/lib/s/ usr/lib/s/y usr/lib/x",
    ),
    "deleted before": (
        [USR, [regular(".wh.lib"), regular("lib/f")]],
        "lib/ lib/f usr/ usr/lib/ usr/lib/s/ usr/lib/s/y usr/lib/x",
    ),
    "deleted after": (
        [USR, [regular("lib/f"), regular(".wh.lib")]],
        "usr/ usr/lib/ usr/lib/f usr/lib/s/ usr/lib/s/y usr/lib/x",
    ),
    "a directory member": (
        [USR, [directory("lib/s", mode=0o711), regular("lib/s/z")]],
        "lib usr/ usr/lib/ usr/lib/s/ usr/lib/s/y usr/lib/s/z usr/lib/x",
    ),
    "a whiteout": ([USR, [regular("lib/.wh.x"), regular("lib/.wh.none")]], "lib usr/ usr/lib/ usr/lib/s/ usr/lib/s/y"),
    "a whiteout of what the layer has": (
        [USR, [regular("usr/lib/x", b"new"), regular("lib/.wh.x"), regular("lib/.wh.s")]],
        "lib usr/ usr/lib/ usr/lib/x",
    ),
    "a whiteout below the link that replaced its directory": (
        [[regular("d/inner"), regular("t/inner")], [symlink("d", "t"), regular("d/.wh.inner")]],
        "d t/",
    ),
    "an opaque mark": (
        [USR, [regular("lib/s/z"), regular("lib/.wh..wh..opq"), regular("usr/lib/f")]],
        "lib usr/ usr/lib/ usr/lib/f usr/lib/s/ usr/lib/s/z",
    ),
    "marks below a dangling link": (
        [[symlink("l", "no/such")], [regular("l/.wh.x"), regular("l/.wh..wh..opq")]],
        "l",
    ),
    "marks below a link to a file": (
        [[regular("f"), symlink("l", "f")], [regular("l/.wh.x"), regular("l/.wh..wh..opq")]],
        "f l",
    ),
    "a hard link's target": ([USR, [hardlink("a", "lib/x")]], "a lib usr/ usr/lib/ usr/lib/s/ usr/lib/s/y usr/lib/x"),
    "a hard link and its target": (
        [USR, [hardlink("lib/a", "/lib/x")]],
        "lib usr/ usr/lib/ usr/lib/a usr/lib/s/ usr/lib/s/y usr/lib/x",
    ),
    "a hard link to the link itself": (
        [USR, [hardlink("l", "lib"), regular("l/f")]],
        "l lib usr/ usr/lib/ usr/lib/f usr/lib/s/ usr/lib/s/y usr/lib/x",
    ),
}

REFUSED: dict[str, list[list[Item]]] = {
    "a loop": [[symlink("a", "b"), symlink("b", "a"), regular("a/f")]],
    "a whiteout below a loop": [[symlink("a", "a")], [regular("a/.wh.f")]],
    "a long component": [[symlink("l", "x" * 256), regular("l/x")]],
    "a hard link before its target": [[hardlink("b", "a"), regular("a")]],
    "a hard link to what a whiteout removed": [[regular("a")], [regular(".wh.a"), hardlink("b", "a")]],
}

REPLACED: dict[str, tuple[list[list[Item]], str]] = {
    "a file": ([[regular("f", b"1"), regular("g")], [regular("f/d/x", b"2")]], "f/ f/d/ f/d/x g"),
    "a file of the same layer": ([[regular("f"), regular("f/x")]], "f/ f/x"),
    "a file below a directory": ([[regular("d/f")], [regular("d/f/x")], [regular("d/f/y")]], "d/ d/f/ d/f/x d/f/y"),
    "a fifo": ([[item("p", tarfile.FIFOTYPE)], [directory("p/d")]], "p/ p/d/"),
    "a file with another name": ([[regular("f"), hardlink("g", "f")], [regular("f/x")]], "f/ f/x g"),
    "a file by a hard link": ([[regular("f"), regular("g")], [hardlink("f/x", "g")]], "f/ f/x g"),
    "a dangling link": ([[symlink("l", "no/such")], [regular("l/d/x")]], "l/ l/d/ l/d/x"),
    "a link to a file": ([[regular("f"), symlink("l", "f")], [regular("l/x")]], "f l/ l/x"),
    "a link to below a file": ([[regular("f"), symlink("l", "f/d")], [regular("l/x")]], "f l/ l/x"),
    "a link to a file of the same layer": ([[regular("f"), symlink("l", "f"), regular("l/x")]], "f/ f/x l"),
    "a loop": ([[symlink("a", "b"), symlink("b", "a")], [regular("a/x"), regular("b/y")]], "a/ a/x a/y b"),
    "a link with itself": ([[symlink("a", "a")], [regular("a/x")]], "a/ a/x"),
    "a link with a long component": ([[symlink("l", "x" * 256)], [regular("l/x")]], "l/ l/x"),
    "a dangling link behind a link": (
        [[symlink("d/l", "no"), symlink("e", "d")], [regular("e/l/x")]],
        "d/ d/l/ d/l/x e",
    ),
    "twice": ([[regular("f"), symlink("f2", "no")], [regular("f/x"), regular("f2/x"), regular("f/y")]],
              "f/ f/x f/y f2/ f2/x"),
    "then hidden": ([[regular("f")], [regular("f/x")], [regular(".wh.f"), regular("g")]], "g"),
    "then hidden in the same layer": ([[regular("f")], [regular("f/x"), regular(".wh.f")]], "f/ f/x"),
}  # fmt: skip


def comparable(found: dict[bytes, Node]) -> dict[bytes, Node]:
    """Implied directories have the time of unpacking."""
    return {
        path: entry._replace(mtime=0) if stat.S_ISDIR(entry.mode) else entry for path, entry in found.items() if path
    }


def listed(found: dict[bytes, Node]) -> str:
    """The paths in one line, directories with a slash."""
    return " ".join(sorted(path.decode() + "/" * stat.S_ISDIR(entry.mode) for path, entry in found.items()))


@pytest.mark.only_root
@pytest.mark.parametrize("case", CASES)
def test_parents_behind_symlinks(tmp_path: Path, case: str) -> None:
    layers, expected = CASES[case]
    root, refusal = unpack(tmp_path, layers)
    assert refusal == ""
    with image(tmp_path, *layers) as tree:
        ours = comparable(snapshot(tree))
        numbers = rows(tree)
    assert listed(ours) == expected
    assert ours == comparable(disk_snapshot(root))
    with image(tmp_path, *layers) as tree:
        assert rows(tree) == numbers


@pytest.mark.only_root
@pytest.mark.parametrize("case", REFUSED)
def test_parents_that_are_refused(tmp_path: Path, case: str) -> None:
    layers = REFUSED[case]
    assert unpack(tmp_path, layers)[1]
    with pytest.raises(LayerError), image(tmp_path, *layers):
        pass


@pytest.mark.parametrize("case", REPLACED)
def test_a_directory_takes_the_place_of_what_is_none(tmp_path: Path, case: str) -> None:
    """As umoci 0.5 and podman do; umoci 0.4 refuses files and makes what a link to nothing names."""
    layers, expected = REPLACED[case]
    with image(tmp_path, *layers) as tree:
        assert listed(comparable(snapshot(tree))) == expected
        assert all(node.mode == stat.S_IFDIR | 0o755 for node in snapshot(tree).values() if stat.S_ISDIR(node.mode))
