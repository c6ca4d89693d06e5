"""Owners, modes and types kept in ``user.containers.override_stat``, and devices that a regular file stands in for."""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.compare import everything
from tests.support.content import LOWERS, Lower, build_plain
from tests.support.mounted import Mounted
from tests.support.systems import System, opened, raises, system
from unionfs import syscalls
from unionfs.options import OptionError, parse
from unionfs.serve import ENGINES

pytestmark = pytest.mark.only_root  # shows owners of all kinds, and makes devices to compare with
__all__ = ["system"]
ALL = 0xFFFFFFFF
XATTR = "user.containers.override_stat"


@pytest.fixture(params=[f"{lower}-{engine}" for lower in LOWERS for engine in ENGINES])
def overridden(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[System]:
    lower, _, engine = request.param.partition("-")
    mounted = Mounted(tmp_path, Lower(tmp_path / "lower", lower).open, engine, overrides=True)
    mounted.mount()
    try:
        yield System(request.param, mounted.target, mounted)
    finally:
        mounted.unmount()


def change(root: Path) -> None:
    """One of each that sets an owner, a mode or a type."""
    (root / "new").write_text("new")
    os.chown(root / "new", 7, 8)
    os.chmod(root / "new", 0o4711)
    (root / "dir").mkdir()
    os.chown(root / "dir", 5, 6)
    os.chmod(root / "dir", 0o3770)
    (root / "dir/inherits").touch()
    (root / "dir/below").mkdir()
    os.chmod(root / "d/f", 0o600)
    os.chown(root / "a", -1, 9)
    os.chmod(root / "d/e/x/f", 0o1755)
    os.chown(root / "d/e", 3, -1)
    os.symlink("somewhere", root / "link")
    os.chown(root / "link", 11, 12, follow_symlinks=False)
    os.chown(root / "s", 13, 14, follow_symlinks=False)
    os.mkfifo(root / "fifo", 0o620)
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "loop", stat.S_IFBLK | 0o640, os.makedev(7, 300))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(root / "socket"))
    os.chown(root / "p", 15, 16)
    (root / "void").unlink()
    (root / "void").mkdir(0o711)
    os.rename(root / "d/e/x", root / "moved")
    os.setxattr(root / "new", "user.own", b"value")
    os.setxattr(root / "d/g", "security.test", b"\1")
    (root / "setid").write_text("x")
    os.chmod(root / "setid", 0o6755)
    os.chown(root / "setid", 20, 20)


def seen(root: Path) -> dict[str, object]:
    return dict(everything(root)[0])


def test_all_is_shown_as_on_a_plain_directory(overridden: System, tmp_path: Path) -> None:
    build_plain(tmp_path / "plain")
    for root in (tmp_path / "plain", overridden.root):
        change(root)
    assert seen(overridden.root) == seen(tmp_path / "plain")
    overridden.remount()
    assert seen(overridden.root) == seen(tmp_path / "plain")


def test_the_host_gets_plain_files_of_the_server(overridden: System) -> None:
    assert overridden.mounted is not None
    change(overridden.root)
    for path in overridden.mounted.upper.rglob("*"):
        info = path.lstat()
        if stat.S_ISCHR(info.st_mode) and not info.st_rdev:
            continue  # a whiteout
        assert (info.st_uid, info.st_gid) == (0, 0), path
        assert stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode), path
        assert not info.st_mode & 0o7000, path
    assert os.getxattr(overridden.mounted.upper / "new", XATTR) == b"7:8:4711"
    assert os.getxattr(overridden.mounted.upper / "loop", XATTR) == b"0:0:0640:block-7-300"
    assert os.getxattr(overridden.mounted.upper / "d/g", "user.containers.override_security.test") == b"\1"


def test_the_mark_on_the_root_is_enough(overridden: System) -> None:
    """What was mounted with the option once goes on without it, as lower layers do."""
    assert overridden.mounted is not None
    overridden.mounted._overrides = False
    overridden.remount()
    os.chown(overridden.root / "d/f", 30, 31)
    assert os.getxattr(overridden.mounted.upper / "d/f", XATTR) == b"30:31:0644"


def test_acls_are_refused(overridden: System) -> None:
    # As the kernel has it (include/uapi/linux/posix_acl_xattr.h).
    acl = struct.pack("<I" + 5 * "HHI", 2, 1, 6, ALL, 2, 4, 1000, 4, 4, ALL, 16, 4, ALL, 32, 0, ALL)
    with raises(errno.EOPNOTSUPP):
        os.setxattr(overridden.root / "d/f", "system.posix_acl_access", acl)


@pytest.mark.parametrize("value", ["1", "3", "x", ""])
def test_other_kinds_are_named(value: str) -> None:
    with pytest.raises(OptionError, match=f"xattr_permissions={value}: only 2"):
        parse([f"lowerdir=a,xattr_permissions={value}"])


# Without the option: what alone needs a stand-in.


def test_the_whiteout_device_is_a_device_like_others(system: System) -> None:
    root = system.root
    os.mknod(root / "n", stat.S_IFCHR | 0o600, 0)
    os.chown(root / "n", 4, 5)
    os.chmod(root / "n", 0o640)
    (root / "void").unlink()
    os.mknod(root / "void", stat.S_IFCHR | 0o600, 0)
    os.link(root / "n", root / "d/n")
    for _ in range(2):
        info = (root / "n").lstat()
        assert (info.st_mode, info.st_rdev, info.st_uid, info.st_gid, info.st_nlink) == (0o20640, 0, 4, 5, 2)
        assert stat.S_ISCHR((root / "void").lstat().st_mode)
        assert {"n", "void"} <= set(os.listdir(root))
        system.remount()
    with raises(errno.EEXIST):
        (root / "n").mkdir()
    with raises(errno.ENXIO):
        os.open(root / "n", os.O_RDONLY)
    (root / "n").unlink()
    (root / "d/n").rename(root / "n")
    (root / "n").unlink()
    assert not os.path.lexists(root / "n")


@pytest.mark.parametrize("name", ["d/f", "d/e", "s", "m", "a"])
@pytest.mark.parametrize("onto", ["fresh", "m/f", "empty"])
def test_a_rename_leaves_a_whiteout_device(system: System, name: str, onto: str) -> None:
    """RENAME_WHITEOUT of rename(2)."""
    source, target = system.root / name, system.root / onto
    if (name in ("d/e", "m") and onto == "m/f") or (name not in ("d/e", "m") and onto == "empty"):
        target.rmdir() if onto == "empty" else target.unlink()
    if name == "m" and onto == "m/f":
        return
    before = source.lstat()
    with opened(system.root) as fd:
        syscalls.renameat2(fd, os.fsencode(name), fd, os.fsencode(onto), syscalls.RENAME_WHITEOUT)
    for _ in range(2):
        left, moved = source.lstat(), target.lstat()
        assert (left.st_mode, left.st_rdev, left.st_uid, left.st_nlink) == (stat.S_IFCHR, 0, 0, 1)
        assert (moved.st_mode, moved.st_size) == (before.st_mode, before.st_size)
        system.remount()
    with opened(system.root) as fd, raises(errno.EINVAL):
        flags = syscalls.RENAME_WHITEOUT | syscalls.RENAME_EXCHANGE
        syscalls.renameat2(fd, b"d/g", fd, b"big", flags)
    with opened(system.root) as fd, raises(errno.EEXIST):
        flags = syscalls.RENAME_WHITEOUT | syscalls.RENAME_NOREPLACE
        syscalls.renameat2(fd, b"d/g", fd, b"big", flags)
