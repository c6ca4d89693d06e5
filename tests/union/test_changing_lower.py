"""Lower directories that others change while they are mounted: with a finite timeout that shows."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.mounted import Mounted
from tests.support.waiting import wait_until
from unionfs.fuse import wire
from unionfs.live.directories import DirectoryStack
from unionfs.serve import ENGINES
from unionfs.tree import ROOT

SHORT = 0.1


class Changing:
    """A mount over `top` and `bottom`, which may be changed."""

    def __init__(self, base: Path, engine: str) -> None:
        self.top, self.bottom = base / "top", base / "bottom"
        for path in (self.top / "d", self.bottom / "d/e"):
            path.mkdir(parents=True)
        (self.bottom / "f").write_text("old")
        (self.bottom / "d/f").write_text("old")
        layers = [os.fsencode(self.top), os.fsencode(self.bottom)]
        self.mounted = Mounted(base, lambda: DirectoryStack(layers, timeout=SHORT), engine)
        self.merged = self.mounted.target


@pytest.fixture(params=ENGINES)
def changing(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Changing]:
    made = Changing(tmp_path, request.param)
    made.mounted.mount()
    try:
        yield made
    finally:
        made.mounted.unmount()


def gives(code: int, call: Callable[[], object]) -> bool:
    try:
        call()
    except OSError as error:
        return error.errno == code
    return False


def shows(path: Path, text: str) -> bool:
    """Whether a file is there with this content, however it was before."""
    try:
        return path.read_text() == text
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE, errno.EISDIR, errno.ENOTDIR):
            return False
        raise


def test_contents_and_attributes(changing: Changing) -> None:
    file = changing.merged / "f"
    with file.open("rb") as held, mmap.mmap(held.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[:] == b"old"
        (changing.bottom / "f").write_text("new")  # of the same size
        wait_until(lambda: file.read_text() == "new", "the new content")
        assert os.pread(held.fileno(), 10, 0) == b"new"
        assert mapped[:] == b"new"
        (changing.bottom / "f").write_text("longer than before")
        wait_until(lambda: file.stat().st_size == 18, "the new size")
        assert file.read_text() == "longer than before"
        (changing.bottom / "f").chmod(0o600)
        wait_until(lambda: file.stat().st_mode & 0o777 == 0o600, "the new mode")


def test_names_come_and_go(changing: Changing) -> None:
    directory = changing.merged / "d"
    assert sorted(os.listdir(directory)) == ["e", "f"]
    assert gives(errno.ENOENT, (directory / "new").stat)
    for place in (changing.bottom, changing.top):  # the one below changes no time that shows
        (place / "d/new").write_text(place.name)
        wait_until(lambda place=place: shows(directory / "new", place.name), "the name in it")
        wait_until(lambda: sorted(os.listdir(directory)) == ["e", "f", "new"], "the listing with it")
    (changing.top / "d/.wh.f").touch()
    wait_until(lambda: gives(errno.ENOENT, (directory / "f").stat), "the whiteout")
    (changing.top / "d/.wh.f").unlink()
    wait_until(lambda: shows(directory / "f", "old"), "the name below")
    (changing.bottom / "d/f").unlink()
    wait_until(lambda: "f" not in os.listdir(directory), "the listing without it")
    wait_until(lambda: gives(errno.ENOENT, (directory / "f").stat), "the name to be gone")


def test_what_is_open_when_it_vanishes(changing: Changing) -> None:
    with (changing.merged / "d/f").open() as read, (changing.merged / "f").open() as unread:
        assert read.read() == "old"
        (changing.bottom / "d/f").unlink()
        (changing.bottom / "f").unlink()
        wait_until(lambda: gives(errno.ENOENT, (changing.merged / "f").stat), "the removal")
        read.seek(0)
        assert read.read() == "old"
        with pytest.raises(OSError) as raised:
            unread.read()
        assert raised.value.errno in (errno.ENOENT, errno.ESTALE)


def test_kinds_change(changing: Changing) -> None:
    merged, bottom = changing.merged, changing.bottom
    assert (merged / "f").read_text() == "old"
    inside = os.open(merged / "d/e", os.O_RDONLY)
    try:
        (bottom / "f").unlink()
        (bottom / "f").mkdir()
        (bottom / "f/below").write_text("below")
        shutil.rmtree(bottom / "d/e")
        (bottom / "d/e").write_text("a file")
        wait_until(lambda: shows(merged / "f/below", "below"), "the directory")
        wait_until(lambda: shows(merged / "d/e", "a file"), "the file")
        assert gives(errno.ENOENT, lambda: os.listdir(inside))  # as of any removed directory
    finally:
        os.close(inside)
    shutil.rmtree(bottom / "f")
    (bottom / "f").symlink_to("d/f")
    wait_until(lambda: shows(merged / "f", "old"), "the symbolic link")
    (bottom / "f").unlink()
    (bottom / "f").symlink_to("d/e")
    wait_until(lambda: os.readlink(merged / "f") == "d/e", "the other symbolic link")


def test_a_directory_is_replaced_by_another(changing: Changing) -> None:
    merged, bottom = changing.merged, changing.bottom
    (bottom / "other").mkdir()
    (bottom / "other/g").write_text("other")
    assert (merged / "d/f").read_text() == "old"
    (bottom / "d").rename(bottom / "was")
    (bottom / "other").rename(bottom / "d")
    wait_until(lambda: os.listdir(merged / "d") == ["g"], "the listing of the other")
    assert shows(merged / "d/g", "other")
    assert shows(merged / "was/f", "old")


def test_names_that_the_upper_has(changing: Changing) -> None:
    merged, bottom, directory = changing.merged, changing.bottom, changing.merged / "d"
    (directory / "ours").write_text("ours")
    (directory / "f").write_text("promoted")
    (directory / "gone").mkdir()
    (bottom / "d/ours").write_text("theirs")
    (bottom / "d/gone").mkdir()
    (bottom / "d/f").unlink()
    (bottom / "d/seen").touch()
    wait_until(lambda: (directory / "seen").exists(), "the change")
    assert sorted(os.listdir(directory)) == ["e", "f", "gone", "ours", "seen"]
    assert (directory / "f").read_text() == "promoted"
    (directory / "ours").unlink()
    (directory / "gone").rmdir()
    (directory / "f").rename(merged / "moved")
    assert sorted(os.listdir(directory)) == ["e", "seen"]
    changing.mounted.unmount()
    changing.mounted.mount()
    assert sorted(os.listdir(directory)) == ["e", "seen"]
    assert (merged / "moved").read_text() == "promoted"


def test_the_directory_below_a_merged_one_vanishes(changing: Changing) -> None:
    directory = changing.merged / "d"
    (directory / "ours").write_text("ours")
    shutil.rmtree(changing.bottom / "d")
    shutil.rmtree(changing.top / "d")
    wait_until(lambda: os.listdir(directory) == ["ours"], "the listing of what is left")
    (directory / "ours").unlink()
    directory.rmdir()
    assert not directory.exists()


def test_marks_and_redirects_are_read_again(tmp_path: Path) -> None:
    for path in ("top/d", "bottom/d", "bottom/other"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "bottom/d/f").touch()
    (tmp_path / "bottom/other/g").touch()
    layers = [os.fsencode(tmp_path / name) for name in ("top", "bottom")]
    tree = DirectoryStack(layers, timeout=0)
    try:
        top = tmp_path / "top/d"
        assert _names(tree) == {b"f"}
        os.setxattr(top, "user.overlay.redirect", b"/other")
        assert _names(tree) == {b"g"}
        os.removexattr(top, "user.overlay.redirect")
        os.setxattr(top, "user.overlay.opaque", b"y")
        assert _names(tree) == set()
    finally:
        tree.close()


def _names(tree: DirectoryStack) -> set[bytes]:
    return {entry.name for entry in tree.entries(tree.lookup(ROOT, b"d"))}


@pytest.mark.parametrize(
    ("seconds", "fields"), [(0, (0, 0)), (1.5, (1, 500_000_000)), (wire.FOREVER, (wire.FOREVER, 0))]
)
def test_timeouts_in_replies(seconds: float, fields: tuple[int, int]) -> None:
    valid = wire.Validity(seconds, 0, 0)
    whole, nsec = fields
    assert valid.entry(7, bytes(88)) == wire.ENTRY_HEAD.pack(7, 0, whole, whole, nsec, nsec) + bytes(88)
    assert valid.attr_head == wire.ATTR_HEAD.pack(whole, nsec, 0)
