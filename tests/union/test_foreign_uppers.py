"""Uppers on file systems that can do less than a disk: the same behaviour, by other steps."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.content import Lower
from tests.support.foreign import KINDS, foreign
from tests.support.mounted import Mounted
from tests.support.systems import System, raises, root
from tests.union import test_operations
from unionfs import syscalls
from unionfs.live.directories import DirectoryStack
from unionfs.serve import ENGINES

__all__ = ["root"]

pytestmark = pytest.mark.only_root

_NOT_HERE = {
    "test_exchange": "bindfs has no RENAME_EXCHANGE",
    "test_fallocate": "bindfs has none",
    "test_deep_paths": "bindfs addresses files by whole paths",
    "test_names_of_one_file_stay_together": "the kernel keeps attributes of bindfs for each name, for a second",
    "test_removing_while_listing_misses_nothing": "takes ten seconds",
}

for _name, _test in vars(test_operations).items():
    if _name.startswith("test_") and _name not in _NOT_HERE and not getattr(_test, "pytestmark", None):
        globals()[_name] = _test


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    with foreign("bindfs", tmp_path / "foreign") as disk:
        mounted = Mounted(tmp_path, Lower(tmp_path / "lower", "image").open, "direct", disk=disk)
        mounted.mount()
        try:
            yield System("image-direct", mounted.target, mounted)
        finally:
            mounted.unmount()


CONTENT = """
    mkdir -p d/e m/sub empty k; echo f > d/f; echo g > d/g; echo x > d/e/x; echo f > m/f; echo one > a; ln a b; ln a k/h
    ln -s a s; echo big > big; truncate -s 2M big; chmod 751 big; touch -d @5 big d/f
"""
CHANGES = """
    echo new > n; echo more >> d/f; rm d/g; echo again > d/g; rm d/g; mkdir d/g; touch d/g/in
    mv d/f m/f; rm m/f; rmdir m/sub; rmdir m; mkdir m; touch m/g; rm m/g; mkdir new; touch new/in; mv -T new m
    rmdir empty; mkdir empty; mkdir other; touch other/in; mv -T other empty
    mv d moved; rm moved/e/x; mkdir last; rmdir moved/e; mv last moved/e
    echo two > a; cat b k/h; ls -l b k > /dev/null; cat b k/h; rm a; cat b; mv b c; cat c k/h
    echo more >> big; ln -sfn other s; touch -h s; chown -h 7:8 s; chown 7:8 big; chmod 4755 n
    exec 3<> n; rm n; echo written >&3; stat -L -c %h /dev/fd/3; exec 3>&-
    mkdir gone; cd gone; rmdir ../gone; stat -c %F .; cd ..
    mkdir -p t/1/2 t/3; touch t/1/2/f t/f; rm -r t; mkdir -m 1777 sticky
"""
LIST = "find . -printf '%P %y %m %l\\n' | sort; find . -type f | sort | xargs head -v; stat -c %u:%g big; readlink s"


def _run(script: str, directory: Path) -> str:
    done = subprocess.run(["bash", "-ec", script], cwd=directory, capture_output=True, text=True, check=False)
    assert done.stderr == "", done.stdout
    assert not done.returncode
    return done.stdout


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_changes_are_as_on_a_disk_also_after_a_remount(tmp_path: Path, kind: str, engine: str) -> None:
    lower, plain = tmp_path / "lower", tmp_path / "plain"
    lower.mkdir()
    _run(CONTENT, lower)
    shutil.copytree(lower, plain, symlinks=True)
    for name in ("b", "k/h"):
        (plain / name).unlink()
        os.link(plain / "a", plain / name)
    with foreign(kind, tmp_path / "foreign") as disk:
        mounted = Mounted(tmp_path, lambda: DirectoryStack([os.fsencode(lower)]), engine, disk=disk)
        mounted.mount()
        try:
            assert _run(CHANGES, mounted.target) == _run(CHANGES, plain)
            expected = _run(LIST, plain)
            assert _run(LIST, mounted.target) == expected
            mounted.unmount()
            assert not os.listdir(disk / "work/work")
            mounted.mount()
            # Where the upper has no hard links that are one file, the names of a file of the tree come apart.
            written = expected if kind != "sshfs" else expected.replace("==> ./k/h <==\ntwo", "==> ./k/h <==\none")
            assert _run(LIST, mounted.target) == written
        finally:
            mounted.unmount()


@pytest.mark.parametrize("kind", KINDS)
def test_what_needs_a_flag_is_refused_and_changes_nothing(tmp_path: Path, kind: str) -> None:
    lower = tmp_path / "lower"
    (lower / "d").mkdir(parents=True)
    (lower / "f").write_text("f")
    with foreign(kind, tmp_path / "foreign") as disk:
        mounted = Mounted(tmp_path, lambda: DirectoryStack([os.fsencode(lower)]), "direct", disk=disk)
        mounted.mount()
        try:
            here = os.open(mounted.target, os.O_RDONLY)
            with raises(errno.EINVAL):
                syscalls.renameat2(here, b"f", here, b"d", syscalls.RENAME_EXCHANGE)
            with raises(errno.EEXIST):
                syscalls.renameat2(here, b"f", here, b"d", syscalls.RENAME_NOREPLACE)
            os.close(here)
            assert (mounted.target / "f").read_text() == "f"
            assert (mounted.target / "d").is_dir()
        finally:
            mounted.unmount()


def test_a_whiteout_device_from_elsewhere_gives_way(tmp_path: Path) -> None:
    """The upper was written on the disk itself, and is then used through bindfs."""
    lower = tmp_path / "lower"
    for name in ("a", "b", "c"):
        (lower / name).mkdir(parents=True)
    with foreign("bindfs", tmp_path / "foreign") as disk:
        mounted = Mounted(tmp_path, lambda: DirectoryStack([os.fsencode(lower)]), "direct", disk=disk)
        for name in ("a", "b", "c"):
            os.mknod(mounted.upper / name, 0o020000, 0)
        mounted.mount()
        try:
            (mounted.target / "a").mkdir()
            (mounted.target / "b").touch()
            (mounted.target / "n").mkdir()
            (mounted.target / "n").rename(mounted.target / "c")
            mounted.unmount()
            mounted.mount()
            assert sorted(path.name for path in mounted.target.iterdir()) == ["a", "b", "c"]
            assert (mounted.target / "b").is_file()
        finally:
            mounted.unmount()


def test_names_too_long_for_a_whiteout_file(tmp_path: Path) -> None:
    """``.wh.NAME`` has no room: a device hides them, which bindfs has, too."""
    names = [f"{kind}{'x' * 254}" for kind in "abcde"]
    lower = tmp_path / "lower"
    lower.mkdir()
    for name in names[:3]:
        (lower / name).write_text(name[0])
    for name in names[3:]:
        (lower / name).mkdir()
    with foreign("bindfs", tmp_path / "foreign") as disk:
        mounted = Mounted(tmp_path, lambda: DirectoryStack([os.fsencode(lower)]), "direct", disk=disk)
        mounted.mount()
        try:
            target = mounted.target
            (target / names[0]).unlink()
            (target / names[1]).write_text("changed")
            (target / names[1]).unlink()
            (target / names[2]).rename(target / "moved")
            (target / names[3]).rmdir()
            (target / names[4]).rename(target / "elsewhere")
            for _ in range(2):
                assert sorted(path.name for path in target.iterdir()) == ["elsewhere", "moved"]
                mounted.unmount()
                mounted.mount()
            for name in names:
                (target / name).write_text("again")
            assert len(list(target.iterdir())) == 7
        finally:
            mounted.unmount()
