"""Names that begin as the marks of layers do, made by programs: shown as any other, no mark to who reads the upper."""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from pathlib import Path

import pytest

from launcher.container.changes import ADDED, changes
from tests.support.compare import everything
from tests.support.overlay import Overlay
from tests.support.systems import System, opened, raises, root, system
from tests.support.users import User
from unionfs import syscalls, whiteout
from unionfs.image.compiler import compile_image
from unionfs.image.tree import CompiledImage
from unionfs.serve import ENGINES
from unionfs.tree import ROOT

__all__ = ["root", "system"]

NAMES = [
    ".wh.f",
    ".wh.g",
    ".wh..wh..opq",
    ".wh..wh.plnk",
    ".wh.",
    ".wh..wh.f",
    ".ufs.wh.f",
    ".ufs.ufs.wh.f",
    ".ufs",
    ".wh",
]


@pytest.mark.parametrize("name", NAMES)
def test_each_form_has_its_own_place_on_disk(name: str) -> None:
    on_disk = whiteout.stored(os.fsencode(name))
    assert whiteout.shown(on_disk) == os.fsencode(name)
    assert not on_disk.startswith(b".wh.")
    assert len({whiteout.stored(os.fsencode(other)) for other in NAMES}) == len(NAMES)


def _fill(root: Path) -> None:
    for name in NAMES:
        (root / "d" / name).write_text(name)
        (root / "d/e" / name).mkdir()
        (root / "d/e" / name / name).symlink_to(name)
    os.mkfifo(root / "m/.wh.f")
    os.link(root / "a", root / "m/.wh.g")
    os.mknod(root / "empty/.wh.x", stat.S_IFREG | 0o600)


def _change(root: Path) -> None:
    (root / "d/f").rename(root / "d/.wh.moved")
    (root / "d/.wh.g").unlink()
    (root / "d/.ufs.wh.f").rename(root / "d/.wh.g")
    (root / "d/e/.wh.f/.wh.f").unlink()
    (root / "d/e/.wh.g").rename(root / "d/e/.wh.f/.wh..wh..opq")
    (root / "m").rename(root / ".wh.m")
    (root / "d/x").mkdir()
    (root / "d/x").rmdir()
    (root / "d/g").rename(root / "d/.wh..wh..opq")
    with opened(root) as fd:
        syscalls.renameat2(fd, b"d/.wh.moved", fd, b"d/e/.wh.f", syscalls.RENAME_EXCHANGE)
        with raises(errno.EEXIST):
            syscalls.renameat2(fd, b"big", fd, b"d/.wh..wh..opq", syscalls.RENAME_NOREPLACE)
        with raises(errno.ENOTEMPTY):
            os.rmdir("d/.wh.moved", dir_fd=fd)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    from tests.support.content import build_plain

    build_plain(tmp_path / "beside")
    return tmp_path / "beside"


@pytest.mark.parametrize("form", ["devices", "files"])
def test_they_are_names_like_others(system: System, plain: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if form == "files":
        monkeypatch.setenv("FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT", "1")
        system.remount()
    for change in (_fill, _change):
        change(plain)
        change(system.root)
        for _ in range(2):
            assert everything(system.root)[0] == everything(plain)[0], change.__name__
            system.remount()


def test_what_the_tree_has_is_hidden_and_shown_again(root: Path) -> None:
    """A program that writes whiteouts, as one that unpacks a layer does, hides nothing here."""
    (root / "d/.wh.f").touch()
    (root / "d/.wh..wh..opq").touch()
    assert (root / "d/f").read_text() == "content of d/f"
    (root / "d/.wh.f").unlink()
    assert (root / "d/f").exists()
    assert not (root / "d/.wh.f").exists()


def test_long_ones_are_refused(root: Path) -> None:
    (root / "d" / (".wh." + "n" * 247)).touch()
    for call in (Path.touch, Path.mkdir):
        with raises(errno.ENAMETOOLONG):
            call(root / "d" / (".wh." + "n" * 252))


def test_near_the_limit_there_is_an_errno(system: System) -> None:
    if system.engine:
        with raises(errno.ENAMETOOLONG):
            (system.root / "d" / (".wh." + "n" * 250)).touch()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_mount_over_such_an_upper(user: User, engine: str) -> None:
    first = Overlay(user, user.temp, engine)
    first.sh("echo low > low/f; echo low > low/.ufs.wh.low", where=".")
    with first.mounted():
        assert first.sh("cat .wh.low") == "low\n"
        first.sh("echo up > .wh.f; mkdir .wh.d; echo in > .wh.d/.wh.in; rm .wh.low; mv .wh.d .wh.e")
        assert first.sh("find . | sort") == ".\n./.wh.e\n./.wh.e/.wh.in\n./.wh.f\n./f\n"
    first.sh("mv up first; mkdir up", where=".")
    second = Overlay(user, user.temp, engine, lower="first:low")
    with second.mounted():
        assert second.sh("find . | sort; cat .wh.f .wh.e/.wh.in f") == (
            ".\n./.wh.e\n./.wh.e/.wh.in\n./.wh.f\n./f\nup\nin\nlow\n"
        )
        second.sh("mv .wh.e g; rm .wh.f; touch -- .wh.low; rmdir g 2>/dev/null || rm -r g")
        assert second.sh("ls -A") == ".wh.low\nf\n"


def test_the_changes_of_a_container_name_them(system: System) -> None:
    if system.mounted is None:
        return
    _fill(system.root)
    (system.root / "d").rename(system.root / "moved")
    tree = system.mounted.open_tree()
    try:
        found = {change.path: change.kind for change in changes(str(system.mounted.upper), tree)}
    finally:
        tree.close()
    assert found[b"/moved/.wh.f"] == found[b"/moved/e/.wh.f/.wh.f"] == found[b"/m/.wh.g"] == ADDED
    assert {path for path in found if path.startswith(b"/moved/.")} == {b"/moved/" + name.encode() for name in NAMES}


def test_a_layer_with_such_names_is_read_as_the_upper_was_meant(tmp_path: Path) -> None:
    low, top = tmp_path / "low.tar", tmp_path / "top.tar"
    for path, names in ((low, ["d/.ufs.wh.a", "d/b", "d/.ufs.wh.c"]), (top, ["d/.wh.b", "d/.wh..ufs.wh.c"])):
        with tarfile.open(path, "w") as tar:
            for name in names:
                tar.addfile(tarfile.TarInfo(name))
    compile_image([low, top], tmp_path / "index")
    with CompiledImage(tmp_path / "index", [low, top]) as tree:
        directory = tree.lookup(ROOT, b"d")
        assert [entry.name for entry in tree.entries(directory)] == [b".ufs.wh.a"]
        assert tree.contains(directory, whiteout.stored(b".wh.a"))
        assert tree.names(tree.lookup(directory, b".ufs.wh.a")) == [(directory, b".ufs.wh.a")]
        assert b".wh.a" in bytes(tree.listing(directory, 0, 4096))
        assert b".ufs" not in bytes(tree.listing(directory, 0, 4096))
