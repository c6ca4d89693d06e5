"""How layers merge: a table of marks and redirects with the kernel's overlayfs as the oracle."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from tests.support.layers import Change, kernel_shows, make, shown
from unionfs.fuse import wire
from unionfs.live.directories import DirectoryStack
from unionfs.tree import ROOT

Layers = list[list[Change]]

BASE: list[Change] = [
    ("file", "f", "base"),
    ("file", "d/f", "base d/f"),
    ("file", "d/g", "base d/g"),
    ("file", "d/e/f", "base d/e/f"),
    ("file", "other/x", "base other/x"),
    ("symlink", "l", "d"),
    ("fifo", "p"),
]

OPAQUE: Change = ("xattr", "d", "trusted.overlay.opaque", "y")


def redirect(path: str, to: str) -> Change:
    return ("xattr", path, "trusted.overlay.redirect", to)


KERNEL: dict[str, Layers] = {
    "one layer": [BASE],
    "merged": [[("file", "d/h", "top")], BASE],
    "file over file": [[("file", "d/f", "top")], BASE],
    "file over directory": [[("file", "d", "top")], BASE],
    "directory over file": [[("file", "f/x", "top")], BASE],
    "symlink over directory": [[("symlink", "d", "other")], BASE],
    "file ends a directory": [[("file", "d/h", "top")], [("file", "d", "middle")], BASE],
    "symlink ends a directory": [[("file", "d/h", "top")], [("symlink", "d", "other")], BASE],
    "whiteout of a file": [[("device", "d/f")], BASE],
    "whiteout of a directory": [[("device", "d")], BASE],
    "whiteout of a symlink": [[("device", "l")], BASE],
    "whiteout of nothing": [[("device", "none")], BASE],
    "whiteout at the bottom": [[("file", "f", "top")], [("device", "g"), ("dir", "d"), ("device", "d/h")]],
    "whiteout below a directory": [[("file", "d/h", "top")], [("device", "d")], BASE],
    "whiteout and again": [[("file", "f", "top")], [("device", "f")], BASE],
    "opaque": [[("file", "d/h", "top"), OPAQUE], BASE],
    "opaque in the middle": [[("dir", "d")], [("file", "d/h", "middle"), OPAQUE], BASE],
    "opaque above a merge": [[("dir", "d"), OPAQUE], [("file", "d/h", "middle")], BASE],
    "opaque at the bottom": [[("dir", "d")], [*BASE, OPAQUE]],
    "whiteout below opaque": [[("dir", "d"), OPAQUE, ("device", "d/f")], BASE],
    "xwhiteout": [
        [
            ("xattr", ".", "trusted.overlay.opaque", "x"),
            ("xattr", ".", "trusted.overlay.whiteout", "y"),
            ("dir", "d"),
            ("xattr", "d", "trusted.overlay.opaque", "x"),
            ("file", "d/f"),
            ("xattr", "d/f", "trusted.overlay.whiteout", ""),
            ("file", "d/g"),
        ],
        BASE,
    ],
    "redirect to a sibling": [[("file", "moved/h", "top"), redirect("moved", "d"), ("device", "d")], BASE],
    "absolute redirect": [[("file", "other/new/h", "top"), redirect("other/new", "/d/e")], BASE],
    "redirect to nothing": [[("file", "moved/h", "top"), redirect("moved", "/none")], BASE],
    "redirect to a file": [[("file", "moved/h", "top"), redirect("moved", "f")], BASE],
    "redirect and opaque": [
        [("file", "moved/h", "top"), redirect("moved", "d"), ("xattr", "moved", "trusted.overlay.opaque", "y")],
        BASE,
    ],
    "redirect over two layers": [
        [("dir", "moved"), redirect("moved", "d")],
        [("file", "d/h", "middle"), ("device", "d/f")],
        BASE,
    ],
    "redirect of a redirect": [
        [("dir", "third"), redirect("third", "second")],
        [("file", "second/h", "middle"), redirect("second", "d"), ("device", "d")],
        BASE,
    ],
    "absolute redirect through a sibling redirect": [
        [("dir", "moved"), redirect("moved", "/second/e")],
        [("dir", "second/e"), redirect("second", "d"), ("file", "second/e/h", "middle")],
        BASE,
    ],
    "redirect through a layer that lacks it": [
        [("dir", "moved"), redirect("moved", "/d/e")],
        [("file", "unrelated", "x")],
        BASE,
    ],
    "redirect through a whiteout": [
        [("dir", "moved"), redirect("moved", "/d/e")],
        [("device", "d")],
        BASE,
    ],
    "redirect through an opaque directory": [
        [("dir", "moved"), redirect("moved", "/d/e")],
        [("file", "d/e/h", "middle"), OPAQUE],
        BASE,
    ],
    "redirect out of an opaque directory": [
        [("dir", "moved"), redirect("moved", "/d/e")],
        [("file", "d/e/h", "middle"), OPAQUE, redirect("d/e", "/other")],
        BASE,
    ],
    "redirect at the bottom": [[("dir", "d")], [*BASE, redirect("d", "other")]],
    "below a redirect": [
        [("file", "moved/e/h", "top"), redirect("moved", "d"), ("device", "moved/f")],
        BASE,
    ],
}


def build(base: Path, layers: Layers) -> list[bytes]:
    base.mkdir(exist_ok=True)
    return [make(base / str(number), *changes) for number, changes in enumerate(layers)]


def stack_shows(paths: list[bytes]) -> dict[str, tuple[str, str]]:
    tree = DirectoryStack(paths)
    try:
        return shown(tree)
    finally:
        tree.close()


@pytest.mark.only_root
@pytest.mark.parametrize("case", KERNEL)
def test_as_the_kernel_does(tmp_path: Path, case: str) -> None:
    paths = build(tmp_path / "layers", KERNEL[case])
    if len(paths) == 1:  # overlayfs wants two of them or an upper
        paths.append(make(tmp_path / "empty"))
    expected = kernel_shows(paths, tmp_path / "merged", ["redirect_dir=on"])
    assert stack_shows(paths) == expected


@pytest.mark.only_root
@pytest.mark.parametrize("case", [case for case in KERNEL if "redirect" not in case and case != "xwhiteout"])
def test_as_the_kernel_does_with_user_xattrs(tmp_path: Path, case: str) -> None:
    layers = [[tuple(word.replace("trusted.", "user.") for word in c) for c in cs] for cs in KERNEL[case]]
    paths = build(tmp_path / "layers", layers)
    if len(paths) == 1:
        paths.append(make(tmp_path / "empty"))
    assert stack_shows(paths) == kernel_shows(paths, tmp_path / "merged", ["userxattr"])


def as_marks(changes: list[Change]) -> list[Change]:
    """The same layer with the marks of image layers (OCI)."""
    marked: list[Change] = []
    for verb, path, *rest in changes:
        above, _, name = path.rpartition("/")
        if verb == "device":
            marked.append(("mark", f"{above}/.wh.{name}" if above else f".wh.{name}"))
        elif verb == "xattr" and rest[0].endswith(".opaque"):
            marked.append(("mark", f"{path}/.wh..wh..opq"))
        else:
            marked.append((verb, path, *rest))
    return marked


@pytest.mark.only_root
@pytest.mark.parametrize("case", [case for case in KERNEL if case != "xwhiteout"])
def test_image_marks_mean_the_same(tmp_path: Path, case: str) -> None:
    devices = build(tmp_path / "devices", KERNEL[case])
    marks = build(tmp_path / "marks", [as_marks(changes) for changes in KERNEL[case]])
    assert stack_shows(marks) == stack_shows(devices)


def test_a_mark_beside_its_name_replaces_what_is_below(tmp_path: Path) -> None:
    paths = build(tmp_path, [[("dir", "x")], [("mark", ".wh.d"), ("file", "d/h", "new"), ("mark", ".wh.f")], BASE])
    found = stack_shows(paths)
    assert {path for path in found if path.startswith("d")} == {"d", "d/h"}
    assert "f" not in found


@pytest.mark.parametrize("target", ["", "/", "//d", "/d/", "a/b", ".", "..", "/../d", "/d/./e"])
def test_a_redirect_that_is_none(tmp_path: Path, target: str) -> None:
    """The kernel's answer is EINVAL, too; above all it must not lead out of the layer."""
    layers: Layers = [[("dir", "moved"), ("xattr", "moved", "user.overlay.redirect", target)], BASE]
    tree = DirectoryStack(build(tmp_path, layers))
    try:
        with pytest.raises(OSError) as caught:
            tree.lookup(ROOT, b"moved")
        assert caught.value.errno == errno.EINVAL
    finally:
        tree.close()


def test_many_layers(tmp_path: Path) -> None:
    """500 layers; a directory of one of them costs no more below than with one layer."""
    layers: Layers = [[("file", f"f{number}", str(number))] for number in range(500)]
    layers[250].append(("file", "d/e/x", "deep"))
    paths = build(tmp_path, layers)
    assert len(stack_shows(paths)) == 503
    tree = DirectoryStack(paths)
    try:
        assert len(tree._nodes.directory(tree.lookup(ROOT, b"d")).layers) == 1
    finally:
        tree.close()


OVERRIDE = "user.containers.override_stat"


@pytest.fixture
def overridden(tmp_path: Path) -> Path:
    """A layer that keeps owners and types in xattrs."""
    make(
        tmp_path / "layer",
        ("xattr", ".", OVERRIDE, "0:0:0755"),
        *(("file", name, "target") for name in ("file", "pipe", "char", "block", "socket", "link", "short")),
        ("dir", "dir"),
        ("file", "plain"),
        ("symlink", "symlink", "plain"),
        ("xattr", "file", OVERRIDE, "5:6:4711:file"),
        ("xattr", "pipe", OVERRIDE, "5:6:0600:pipe"),
        ("xattr", "char", OVERRIDE, "5:6:0600:char-1-3"),
        ("xattr", "block", OVERRIDE, "5:6:0600:block-8-300"),
        ("xattr", "socket", OVERRIDE, "5:6:0600:socket"),
        ("xattr", "link", OVERRIDE, "5:6:0777:symlink"),
        ("xattr", "short", OVERRIDE, "5:6:0640"),
        ("xattr", "dir", OVERRIDE, "5:6:1777:dir"),
        ("xattr", "file", "user.containers.override_security.capability", "caps"),
        ("xattr", "file", "user.mine", "yes"),
    )
    return tmp_path / "layer"


def attrs(layer: Path) -> dict[str, wire.Attr]:
    tree = DirectoryStack([os.fsencode(layer)])
    try:
        listed = {entry.name: entry.type for entry in tree.entries(ROOT)}
        found = {}
        for name, type_ in listed.items():
            node = tree.lookup(ROOT, name)
            found[os.fsdecode(name)] = attr = wire.Attr.unpack(tree.attr(node))
            assert wire.Attr.unpack(tree.attr(node)) == attr, "lookup and a later getattr agree"
            assert stat.S_IFMT(attr.mode) >> 12 == type_, "listing and lookup agree"
        return found
    finally:
        tree.close()


def test_override_stat(overridden: Path) -> None:
    found = attrs(overridden)
    modes = {name: stat.filemode(attr.mode) for name, attr in found.items() if attr.uid == 5 and attr.gid == 6}
    assert modes == {
        "file": "-rws--x--x",
        "pipe": "prw-------",
        "char": "crw-------",
        "block": "brw-------",
        "socket": "srw-------",
        "link": "lrwxrwxrwx",
        "short": "-rw-r-----",
        "dir": "drwxrwxrwt",
    }
    assert wire.decode_rdev(found["char"].rdev) == (1, 3)
    assert wire.decode_rdev(found["block"].rdev) == (8, 300)
    assert found["file"].rdev == 0
    for name in ("plain", "symlink"):
        assert found[name].mode == os.lstat(overridden / name).st_mode


def test_override_xattrs_and_target(overridden: Path) -> None:
    tree = DirectoryStack([os.fsencode(overridden)])
    try:
        assert tree.xattrs(tree.lookup(ROOT, b"file")) == {b"security.capability": b"caps", b"user.mine": b"yes"}
        assert tree.readlink(tree.lookup(ROOT, b"link")) == b"target"
        assert tree.readlink(tree.lookup(ROOT, b"symlink")) == b"plain"
    finally:
        tree.close()


def test_override_is_ignored_where_the_root_has_none(overridden: Path) -> None:
    os.removexattr(overridden, OVERRIDE)
    for name, attr in attrs(overridden).items():
        assert attr.mode == os.lstat(overridden / name).st_mode
        assert attr.uid == os.lstat(overridden / name).st_uid


@pytest.mark.parametrize("value", ["", "0", "0:0", "a:b:c", "0:0:0999", "0:0:0644:char-x-y", f"{1 << 32}:0:0644"])
def test_malformed_override(overridden: Path, value: str) -> None:
    os.setxattr(overridden / "file", OVERRIDE, value.encode())
    tree = DirectoryStack([os.fsencode(overridden)])
    try:
        with pytest.raises(OSError) as caught:
            tree.lookup(ROOT, b"file")
        assert caught.value.errno == errno.EINVAL
    finally:
        tree.close()
