"""What only the direct front end can do: O_TMPFILE, POSIX ACLs, inode flags. On a plain directory, too."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.content import LOWERS
from tests.support.somebody import Somebody
from tests.union.test_operations import System, opened, raises, root, system

SYSTEMS = ["plain", *(f"{lower}-direct" for lower in LOWERS)]
pytestmark = [pytest.mark.only_root, pytest.mark.parametrize("system", SYSTEMS, indirect=True)]
assert root, system  # the fixtures

ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
OTHER = 4242
STRANGER = Somebody(OTHER, OTHER)
_NOBODY_IN_PARTICULAR = 0xFFFFFFFF
USER_OBJ, USER, GROUP_OBJ, MASK, OTHERS = 1, 2, 4, 16, 32


def acl(*entries: tuple[int, int, int]) -> bytes:
    """(tag, permissions, id) in the form of the xattr (linux/posix_acl_xattr.h)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def for_user(permissions: int, group: int = 0, mask: int = 7, others: int = 0) -> bytes:
    none = _NOBODY_IN_PARTICULAR
    return acl((USER_OBJ, 7, none), (USER, permissions, OTHER), (GROUP_OBJ, group, none), (MASK, mask, none),
               (OTHERS, others, none))  # fmt: skip


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def reads(name: str) -> Callable[[], object]:
    return lambda: Path(name).read_bytes()


# ACLs.


def test_an_access_acl_is_kept_and_obeyed(system: System) -> None:
    path = system.root / "a"
    path.chmod(0o700)
    assert STRANGER.attempt(system.root, reads("a")) == errno.EACCES
    os.setxattr(path, ACCESS, for_user(4))
    assert mode(path) == 0o770, "the group's bits are the mask"
    assert STRANGER.attempt(system.root, reads("a")) == 0
    system.remount()
    assert STRANGER.attempt(system.root, reads("a")) == 0
    path.chmod(0o600)
    assert STRANGER.attempt(system.root, reads("a")) == errno.EACCES, "chmod has cut the mask"
    assert os.getxattr(path, ACCESS) == acl(
        (USER_OBJ, 6, _NOBODY_IN_PARTICULAR), (USER, 4, OTHER), (GROUP_OBJ, 0, _NOBODY_IN_PARTICULAR),
        (MASK, 0, _NOBODY_IN_PARTICULAR), (OTHERS, 0, _NOBODY_IN_PARTICULAR),
    )  # fmt: skip
    os.removexattr(path, ACCESS)
    assert ACCESS not in os.listxattr(path)


def test_an_acl_can_refuse_one_user(system: System) -> None:
    path = system.root / "a"
    path.chmod(0o755)
    os.setxattr(path, ACCESS, for_user(0, group=5, others=5))
    assert mode(path) == 0o775
    assert STRANGER.attempt(system.root, reads("a")) == errno.EACCES


def test_a_default_acl_is_inherited_and_takes_the_umasks_place(system: System) -> None:
    os.setxattr(system.root / "d", DEFAULT, for_user(7))
    before = os.umask(0o077)
    try:
        (system.root / "d/made").write_text("x")
        (system.root / "d/sub").mkdir()
        (system.root / "d/sub/made").write_text("x")
        os.mkfifo(system.root / "d/fifo", 0o666)
        (system.root / "umasked").write_text("x")
        (system.root / "umasked-dir").mkdir()
    finally:
        os.umask(before)
    assert [mode(system.root / name) for name in ("d/made", "d/sub", "d/sub/made", "d/fifo")] == [
        0o660, 0o770, 0o660, 0o660,
    ]  # fmt: skip
    assert [mode(system.root / name) for name in ("umasked", "umasked-dir")] == [0o600, 0o700]
    assert os.getxattr(system.root / "d/sub", DEFAULT) == for_user(7)
    assert STRANGER.attempt(system.root, reads("d/sub/made")) == 0
    (system.root / "d").chmod(0o700)
    assert STRANGER.attempt(system.root, reads("d/sub/made")) == errno.EACCES, "d itself has only a default ACL"


def test_a_default_acl_counts_where_something_was_removed(system: System) -> None:
    """There it is made elsewhere first and takes the whiteout's place."""
    os.setxattr(system.root / "d", DEFAULT, for_user(6))
    (system.root / "d/f").unlink()
    fd = os.open(system.root / "d/f", os.O_CREAT | os.O_WRONLY, 0o640)
    os.close(fd)
    assert mode(system.root / "d/f") == 0o640
    assert os.getxattr(system.root / "d/f", ACCESS)[12:20] == struct.pack("<HHI", USER, 6, OTHER)


def test_a_removed_default_acl_is_not_inherited_any_more(system: System) -> None:
    os.setxattr(system.root / "d", DEFAULT, for_user(7))
    (system.root / "d/one").write_text("x")
    os.removexattr(system.root / "d", DEFAULT)
    (system.root / "d/two").write_text("x")
    assert ACCESS in os.listxattr(system.root / "d/one")
    assert ACCESS not in os.listxattr(system.root / "d/two")


def test_setgid_directories_and_default_acls_go_together(system: System) -> None:
    os.chown(system.root / "d", -1, 77)
    (system.root / "d").chmod(0o2755)
    os.setxattr(system.root / "d", DEFAULT, for_user(5, group=5))
    (system.root / "d/sub").mkdir()
    made = (system.root / "d/sub").stat()
    assert (made.st_gid, stat.S_IMODE(made.st_mode)) == (77, 0o2770)


def test_setfacl_and_getfacl(root: Path) -> None:
    subprocess.run(["setfacl", "-m", f"u:{OTHER}:rw,g:7:r", root / "d/f"], check=True)
    shown = subprocess.run(["getfacl", "-cpn", root / "d/f"], check=True, stdout=subprocess.PIPE, text=True).stdout
    assert f"user:{OTHER}:rw-" in shown
    assert "group:7:r--" in shown
    subprocess.run(["cp", "-a", root / "d/f", root / "copy"], check=True)
    again = subprocess.run(["getfacl", "-cpn", root / "copy"], check=True, stdout=subprocess.PIPE, text=True).stdout
    assert again == shown
    subprocess.run(["setfacl", "-b", root / "d/f"], check=True)
    assert ACCESS not in os.listxattr(root / "d/f")


# Files without a name.


def test_a_nameless_file_gets_a_name(system: System) -> None:
    fd = os.open(system.root / "d", os.O_TMPFILE | os.O_RDWR, 0o640)
    try:
        os.write(fd, b"from nowhere")
        assert os.fstat(fd).st_nlink == 0
        assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o640
        assert "new" not in os.listdir(system.root / "d")
        os.link(f"/proc/self/fd/{fd}", system.root / "d/new", src_dir_fd=0, follow_symlinks=True)
        assert os.fstat(fd).st_nlink == 1
        os.write(fd, b", and more")
        assert (system.root / "d/new").read_bytes() == b"from nowhere, and more"
        with raises(errno.EEXIST):
            os.link(f"/proc/self/fd/{fd}", system.root / "d/new", src_dir_fd=0, follow_symlinks=True)
        (system.root / "d/new").unlink()
        assert os.pread(fd, 4, 0) == b"from"
    finally:
        os.close(fd)


def test_a_nameless_file_goes_with_its_descriptor(system: System) -> None:
    fd = os.open(system.root, os.O_TMPFILE | os.O_WRONLY, 0o600)
    os.write(fd, b"x" * 100_000)
    os.close(fd)
    system.remount()
    if system.mounted is not None:
        assert list(system.mounted.work.glob("work/*")) == []


def test_an_exclusive_nameless_file_gets_no_name(system: System) -> None:
    with opened(system.root, os.O_TMPFILE | os.O_WRONLY | os.O_EXCL) as fd, raises(errno.ENOENT):
        os.link(f"/proc/self/fd/{fd}", system.root / "never", src_dir_fd=0, follow_symlinks=True)


def test_a_nameless_file_of_another_user(system: System) -> None:
    (system.root / "d").chmod(0o777)

    def make() -> None:
        fd = os.open("d", os.O_TMPFILE | os.O_WRONLY, 0o4750)
        os.link(f"/proc/self/fd/{fd}", "d/theirs", src_dir_fd=0, follow_symlinks=True)

    assert STRANGER.attempt(system.root, make) == 0
    made = (system.root / "d/theirs").stat()
    assert (made.st_uid, made.st_gid, stat.S_IMODE(made.st_mode)) == (OTHER, OTHER, 0o4750 & ~0o022)


# Inode flags.


@pytest.mark.parametrize("name", ["a", "d", "d/f"])
def test_inode_flags_are_answered(root: Path, name: str) -> None:
    for changed in (False, True):
        if changed:
            os.utime(root / name)
        with opened(root / name) as fd:
            (flags,) = struct.unpack("<i", fcntl.ioctl(fd, 0x80086601, bytes(4)))
            assert flags & 0x30 == 0, "neither immutable nor append-only"
            fcntl.ioctl(fd, 0x40086602, struct.pack("<i", flags))


def test_unknown_ioctls_are_refused(root: Path) -> None:
    with opened(root / "a") as fd, raises(errno.ENOTTY):
        fcntl.ioctl(fd, 0x5413, bytes(8))
