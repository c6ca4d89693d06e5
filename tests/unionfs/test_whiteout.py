"""Every form of mark is read, by listing and by name alike, and written so that both read it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.layers import Change, make
from unionfs import whiteout
from unionfs.whiteout import Listing, Marks, Whiteout, Writer

NAMESPACES = ["user", "trusted"]


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    path = tmp_path / "layer"
    path.mkdir()
    return path


@pytest.fixture
def fd(layer: Path) -> Iterator[int]:
    fd = os.open(layer, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def answer(fd: int, name: bytes) -> str:
    """What `probe` says, in a word."""
    found = whiteout.probe(fd, name, xwhiteouts=whiteout.marks(fd).xwhiteouts)
    if found is None:
        return "nothing"
    return "whiteout" if isinstance(found, Whiteout) else stat.filemode(found.st_mode)[0]


def scan(fd: int) -> Listing:
    return whiteout.scan(fd, xwhiteouts=whiteout.marks(fd).xwhiteouts)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([("file", "a")], "-"),
        ([("dir", "a")], "d"),
        ([("symlink", "a", "/etc/passwd")], "l"),
        ([("fifo", "a")], "p"),
        ([("device", "a")], "whiteout"),
        ([("mark", ".wh.a")], "whiteout"),
        ([("mark", ".wh.b")], "nothing"),
        ([("mark", ".wh.a"), ("dir", "a")], "d"),
        ([("file", "a"), ("xattr", "a", "user.overlay.whiteout", "")], "-"),
        ([("xattr", ".", "user.overlay.opaque", "x"), ("file", "a")], "-"),
        *(
            (
                [
                    ("xattr", ".", f"{space}.overlay.opaque", "x"),
                    ("file", "a", content),
                    ("xattr", "a", f"{space}.overlay.whiteout", ""),
                ],
                expected,
            )
            for space in NAMESPACES
            for content, expected in [("", "whiteout"), ("x", "-")]
        ),
    ],
)
def test_probe_and_scan_agree(layer: Path, fd: int, changes: list[Change], expected: str) -> None:
    make(layer, *changes)
    assert answer(fd, b"a") == expected
    listing = scan(fd)
    assert (b"a" in listing.names) == (expected not in ("nothing", "whiteout"))
    if expected == "whiteout":
        assert b"a" in listing.whiteouts
    assert not any(name.startswith(b".wh.") for name in listing.names)


def test_a_replaced_directory_is_a_name_and_a_whiteout(layer: Path, fd: int) -> None:
    make(layer, ("mark", ".wh.a"), ("dir", "a"))
    listing = scan(fd)
    assert b"a" in listing.names
    assert b"a" in listing.whiteouts
    assert whiteout.is_marked(fd, b"a")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([], Marks()),
        ([("xattr", ".", "user.other", "y")], Marks()),
        ([("xattr", ".", "user.overlay.opaque", "y")], Marks(opaque=True)),
        ([("xattr", ".", "trusted.overlay.opaque", "y")], Marks(opaque=True)),
        ([("xattr", ".", "user.fuseoverlayfs.opaque", "y")], Marks(opaque=True)),
        ([("xattr", ".", "user.overlay.opaque", "n")], Marks()),
        ([("xattr", ".", "user.overlay.opaque", "x")], Marks(xwhiteouts=True)),
        ([("xattr", ".", "user.overlay.redirect", "other")], Marks(redirect=b"other")),
        ([("xattr", ".", "trusted.overlay.redirect", "/a/b")], Marks(redirect=b"/a/b")),
    ],
)
def test_marks(layer: Path, fd: int, changes: list[Change], expected: Marks) -> None:
    make(layer, *changes)
    assert whiteout.marks(fd) == expected
    assert whiteout.is_opaque(fd) == expected.opaque


def test_opaque_by_name(layer: Path, fd: int) -> None:
    make(layer, ("mark", ".wh..wh..opq"))
    assert scan(fd).opaque
    assert whiteout.is_opaque(fd)


@pytest.mark.parametrize("devices", [True, False])
def test_written_whiteouts_are_read(layer: Path, fd: int, devices: bool) -> None:
    writer = Writer(devices)
    writer.hide(fd, b"a")
    assert answer(fd, b"a") == "whiteout"
    assert os.listdir(layer) == (["a"] if devices else [".wh.a"])
    assert writer.reveal(fd, b"a")
    assert answer(fd, b"a") == "nothing"
    assert not writer.reveal(fd, b"a")


def test_revealing_leaves_what_is_no_whiteout(layer: Path, fd: int) -> None:
    make(layer, ("file", "a", "content"), ("mark", ".wh.a"))
    assert Writer().reveal(fd, b"a")
    assert os.listdir(layer) == ["a"]


def test_the_environment_forbids_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Writer().devices
    monkeypatch.setenv("FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT", "1")
    assert not Writer().devices


def test_a_device_is_not_written_over_a_file(layer: Path, fd: int) -> None:
    make(layer, ("file", "a", "content"))
    with pytest.raises(FileExistsError):
        Writer(True).hide(fd, b"a")


@pytest.mark.parametrize("devices", [True, False])
def test_a_name_without_room_for_a_mark_is_hidden_by_a_device(layer: Path, fd: int, devices: bool) -> None:
    name = b"n" * 255
    Writer(devices).hide(fd, name)
    assert answer(fd, name) == "whiteout"
    assert Writer(devices).reveal(fd, name)


def test_written_opaque_marks_are_read(layer: Path, fd: int) -> None:
    Writer().mark_opaque(fd)
    assert whiteout.is_opaque(fd)
    assert os.getxattr(layer, "user.overlay.opaque") == b"y"


def test_a_file_system_without_xattrs_has_no_marks() -> None:
    fd = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY)
    try:
        assert whiteout.marks(fd) == Marks()
        assert not whiteout.is_opaque(fd)
    finally:
        os.close(fd)
