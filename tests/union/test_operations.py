"""One behaviour a test, on a mount with both engines and both trees, and on a plain directory: so that the case
itself is known to be right.
"""

from __future__ import annotations

import errno
import mmap
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.content import BIG
from tests.support.systems import SYSTEMS, System, opened, raises, root, system
from unionfs import syscalls

__all__ = ["root", "system"]


def rename(old: Path, new: Path, flags: int) -> None:
    syscalls.renameat2(syscalls.AT_FDCWD, os.fsencode(old), syscalls.AT_FDCWD, os.fsencode(new), flags)


# Descriptors and copy-up.


def test_an_open_descriptor_sees_what_is_written_by_name(root: Path) -> None:
    with opened(root / "d/f") as fd:
        assert os.pread(fd, 7, 0) == b"content"
        with opened(root / "d/f", os.O_WRONLY) as other:
            os.pwrite(other, b"CHANGED", 0)
        assert os.pread(fd, 7, 0) == b"CHANGED"


def test_a_mapping_sees_what_is_written(root: Path) -> None:
    with opened(root / "big") as fd, mmap.mmap(fd, 4096, mmap.MAP_SHARED, mmap.PROT_READ) as view:
        assert view[:4] == b"0123"
        with opened(root / "big", os.O_WRONLY) as other:
            os.pwrite(other, b"mine", 0)
        assert view[:4] == b"mine"


def test_what_a_mapping_writes_is_read(system: System) -> None:
    with opened(system.root / "big", os.O_RDWR) as fd, mmap.mmap(fd, 8192) as view:
        view[5000:5004] = b"mine"
    system.remount()
    assert (system.root / "big").read_bytes()[5000:5004] == b"mine"


def test_an_unlinked_file_lives_on_in_its_descriptor(root: Path) -> None:
    with opened(root / "d/f", os.O_RDWR) as fd:
        (root / "d/f").unlink()
        assert os.fstat(fd).st_nlink == 0
        os.pwrite(fd, b"still here", 0)
        os.fchmod(fd, 0o600)
        os.setxattr(fd, "user.late", b"x")
        assert os.pread(fd, 10, 0) == b"still here"
        assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o600
        assert not (root / "d/f").exists()


def test_an_unlinked_file_is_read_without_being_written(root: Path) -> None:
    with opened(root / "d/f") as fd:
        (root / "d/f").unlink()
        (root / "d/f").write_text("another")
        assert os.pread(fd, 100, 0) == b"content of d/f"


def test_a_removed_directory_is_empty_and_takes_nothing(root: Path) -> None:
    with opened(root / "empty", os.O_RDONLY | os.O_DIRECTORY) as fd:
        (root / "empty").rmdir()
        assert os.listdir(fd) == []
        with raises(errno.ENOENT):
            os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
        with raises(errno.ENOENT):
            os.mkdir("d", dir_fd=fd)
        (root / "empty").mkdir()
        with raises(errno.ENOENT):
            os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd)


def test_appending_is_at_the_end_whoever_writes(root: Path) -> None:
    with (
        opened(root / "a", os.O_WRONLY | os.O_APPEND) as first,
        opened(root / "b", os.O_WRONLY | os.O_APPEND) as second,
    ):
        os.write(first, b"+1")
        os.write(second, b"+2")
    assert (root / "d/h").read_text() == "a file of three names+1+2"


def test_truncating_keeps_the_number_and_loses_the_data(root: Path) -> None:
    before = (root / "big").stat().st_ino
    os.truncate(root / "big", 3)
    os.truncate(root / "big", 6)
    assert (root / "big").read_bytes() == b"012\0\0\0"
    assert (root / "big").stat().st_ino == before


@pytest.mark.parametrize("name", ["d/f", "big", "a"])
def test_what_was_cut_when_opened_stays_cut(system: System, name: str) -> None:
    """Both for the tree's file and for what is in the upper by then."""
    for text in ("new", "n"):
        (system.root / name).write_text(text)
        system.remount()
        assert (system.root / name).read_text() == text


def test_the_big_file_is_copied_whole(system: System) -> None:
    with opened(system.root / "big", os.O_WRONLY) as fd:
        os.pwrite(fd, b"!", BIG + 100)
    system.remount()
    content = (system.root / "big").read_bytes()
    size = BIG // 16 * 16
    assert content == b"0123456789abcdef" * (BIG // 16) + bytes(BIG + 100 - size) + b"!"


# Hard links.


def test_names_of_one_file_stay_together(system: System) -> None:
    root = system.root
    (root / "a").write_text("changed")
    for name in ("a", "b", "d/h"):
        assert (root / name).read_text() == "changed"
        assert (root / name).stat().st_nlink == 3
    assert len({(root / name).stat().st_ino for name in ("a", "b", "d/h")}) == 1
    (root / "a").unlink()
    system.remount()
    assert (root / "b").stat().st_nlink == 2
    os.link(root / "b", root / "new")
    assert (root / "d/h").stat().st_nlink == 3
    assert (root / "new").samefile(root / "d/h")


def test_renaming_onto_another_name_of_the_same_file_does_nothing(root: Path) -> None:
    (root / "a").rename(root / "b")
    assert (root / "a").exists()
    assert (root / "b").exists()


# Removing and renaming.


def test_what_was_removed_stays_removed(system: System) -> None:
    root = system.root
    (root / "d/f").unlink()
    (root / "empty").rmdir()
    (root / "s").unlink()
    for _ in range(2):
        for name in ("d/f", "empty", "s"):
            assert not os.path.lexists(root / name)
        assert "f" not in os.listdir(root / "d")
        with raises(errno.ENOENT):
            (root / "d/f").unlink()
        system.remount()


def test_a_directory_made_anew_is_empty(system: System) -> None:
    root = system.root
    for name in ("f", "g"):
        (root / "m" / name).unlink()
    (root / "m").rmdir()
    (root / "m").mkdir()
    for _ in range(2):
        assert os.listdir(root / "m") == []
        system.remount()


def test_directories_are_renamed_not_copied(system: System) -> None:
    root = system.root
    before = (root / "d/e/x/f").stat()
    (root / "d/e").rename(root / "empty/moved")
    (root / "d").rename(root / "elsewhere")
    for _ in range(2):
        after = (root / "empty/moved/x/f").stat()
        assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
        assert sorted(os.listdir(root / "elsewhere")) == ["f", "g", "h", "l"]
        assert not (root / "d").exists()
        system.remount()
    assert system.engine == "pyfuse3" or (root / "empty/moved/x/f").stat().st_ino == before.st_ino


def test_a_new_directory_takes_an_old_ones_place(system: System) -> None:
    root = system.root
    (root / "d").rename(root / "old")
    (root / "d").mkdir()
    (root / "d/only").touch()
    system.remount()
    assert os.listdir(root / "d") == ["only"]
    assert (root / "old/f").read_text() == "content of d/f"


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("none", "n", errno.ENOENT),
        ("a", "d", errno.EISDIR),
        ("d", "a", errno.ENOTDIR),
        ("empty", "d", errno.ENOTEMPTY),
        ("d", "d/e/n", errno.EINVAL),
        ("a", "n" * 256, errno.ENAMETOOLONG),
        ("a", "none/n", errno.ENOENT),
        ("a", "void/n", errno.ENOTDIR),
    ],
)
def test_renames_that_cannot_be(root: Path, old: str, new: str, code: int) -> None:
    with raises(code):
        (root / old).rename(root / new)


def test_exchange(system: System) -> None:
    root = system.root
    rename(root / "d", root / "a", syscalls.RENAME_EXCHANGE)
    rename(root / "m", root / "empty", syscalls.RENAME_EXCHANGE)
    with raises(errno.ENOENT):
        rename(root / "a", root / "none", syscalls.RENAME_EXCHANGE)
    for _ in range(2):
        assert (root / "d").read_text() == "a file of three names"
        assert (root / "a/e/f").read_text() == "content of d/e/f"
        assert sorted(os.listdir(root / "empty")) == ["f", "g"]
        assert os.listdir(root / "m") == []
        system.remount()


def test_noreplace(root: Path) -> None:
    with raises(errno.EEXIST):
        rename(root / "a", root / "void", syscalls.RENAME_NOREPLACE)
    rename(root / "a", root / "n", syscalls.RENAME_NOREPLACE)
    assert (root / "n").exists()


# Names.


@pytest.mark.parametrize("call", [os.stat, os.mkdir, os.unlink, os.mkfifo, Path.touch])
def test_names_that_are_too_long(root: Path, call: object) -> None:
    assert callable(call)
    with raises(errno.ENAMETOOLONG):
        call(root / "d" / ("n" * 256))


def test_the_longest_name(root: Path) -> None:
    path = root / "d" / ("n" * 255)
    path.write_text("x")
    assert path.read_text() == "x"
    path.unlink()
    assert not path.exists()


@pytest.mark.parametrize(
    ("name", "code"),
    [("d", errno.EEXIST), ("a", errno.EEXIST), ("p", errno.EEXIST), ("none/n", errno.ENOENT), ("a/n", errno.ENOTDIR)],
)
def test_names_that_cannot_be_made(root: Path, name: str, code: int) -> None:
    for make in (os.mkdir, os.mkfifo, lambda path: os.symlink("x", path), lambda path: os.link(root / "void", path)):
        with raises(code):
            make(root / name)


@pytest.mark.parametrize(
    ("name", "code"), [("d", errno.ENOTEMPTY), ("a", errno.ENOTDIR), ("t", errno.ENOTDIR), ("none", errno.ENOENT)]
)
def test_directories_that_cannot_be_removed(root: Path, name: str, code: int) -> None:
    with raises(code):
        (root / name).rmdir()


def test_names_that_are_not_utf8(system: System) -> None:
    path = os.path.join(os.fsencode(system.root), b"d/\xff\xfe\n")
    os.mkdir(path)
    system.remount()
    assert b"\xff\xfe\n" in os.listdir(os.path.join(os.fsencode(system.root), b"d"))


# What is made.


def test_the_umask_applies_to_everything(root: Path) -> None:
    before = os.umask(0o027)
    try:
        os.mkfifo(root / "n", 0o666)
        os.mkdir(root / "o", 0o777)
        os.close(os.open(root / "f", os.O_CREAT | os.O_WRONLY, 0o666))
    finally:
        os.umask(before)
    assert [stat.S_IMODE((root / name).stat().st_mode) for name in "nof"] == [0o640, 0o750, 0o640]


def test_set_group_id_directories_pass_their_group_on(system: System) -> None:
    root = system.root
    if os.geteuid() == 0:
        os.chown(root / "d/e", -1, 4711)
        os.chmod(root / "d/e", 0o2775)
    system.remount()
    (root / "d/e/n").mkdir()
    (root / "d/e/o").touch()
    group = (root / "d/e").stat().st_gid
    assert (root / "d/e/n").stat().st_gid == (root / "d/e/o").stat().st_gid == group
    assert (root / "d/e/n").stat().st_mode & stat.S_ISGID
    assert not (root / "d/e/o").stat().st_mode & stat.S_ISGID


@pytest.mark.only_root
def test_devices(system: System) -> None:
    os.mknod(system.root / "n", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mknod(system.root / "o", stat.S_IFBLK | 0o600, os.makedev(259, 300))
    system.remount()
    assert (system.root / "n").stat().st_rdev == os.makedev(1, 3)
    assert (system.root / "o").stat().st_rdev == os.makedev(259, 300)


def test_sockets(root: Path) -> None:
    here = os.getcwd()
    os.chdir(root)  # a socket's name is short
    try:
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
            server.bind("n")
            server.listen()
            client.connect("n")
    finally:
        os.chdir(here)
    assert stat.S_ISSOCK((root / "n").stat().st_mode)


# Attributes.


def test_reading_changes_no_time_of_the_directory(root: Path) -> None:
    before = (root / "d").stat().st_mtime_ns
    with opened(root / "d/f", os.O_WRONLY) as fd:
        os.pwrite(fd, b"x", 0)
    os.chmod(root / "d/g", 0o600)
    assert (root / "d").stat().st_mtime_ns == before
    (root / "d/n").touch()
    assert (root / "d").stat().st_mtime_ns > before


def test_times_to_the_nanosecond(system: System) -> None:
    for name in ("d", "d/f", "s", "p", "a"):
        os.utime(system.root / name, ns=(123_456_789, -1), follow_symlinks=False)
    system.remount()
    for name in ("d", "d/f", "s", "p", "a"):
        info = os.lstat(system.root / name)
        assert (info.st_atime_ns, info.st_mtime_ns) == (123_456_789, -1), name


@pytest.mark.only_root
def test_a_new_owner_takes_the_set_id_bits(root: Path) -> None:
    os.chown(root / "d/e/x/f", 1, 1)
    assert stat.S_IMODE((root / "d/e/x/f").stat().st_mode) == 0o755


@contextmanager
def nobody(root: Path) -> Iterator[int]:
    """Act as a user without privileges; yields a descriptor of `root`, whose path is closed to that user."""
    with opened(root, os.O_PATH) as fd:
        os.seteuid(65534)
        try:
            yield fd
        finally:
            os.seteuid(0)


@pytest.mark.only_root
def test_a_writer_without_privileges_takes_the_set_id_bits(root: Path) -> None:
    for name, mode in (("d/e/x/f", 0o4777), ("d/e/x", 0o755)):
        os.chmod(root / name, mode)
    with nobody(root) as base:
        fd = os.open("d/e/x/f", os.O_WRONLY, dir_fd=base)
        os.write(fd, b"x")
        os.close(fd)
    assert stat.S_IMODE((root / "d/e/x/f").stat().st_mode) == 0o777


@pytest.mark.only_root
def test_modes_are_checked(root: Path) -> None:
    with nobody(root) as base:
        for name, flags in (
            ("d/e/f", os.O_RDONLY),
            ("d/f", os.O_WRONLY),
            ("d/n", os.O_CREAT),
            ("d/e/x/f", os.O_RDONLY),
        ):
            with raises(errno.EACCES):
                os.open(name, flags, dir_fd=base)
        with raises(errno.EPERM):
            os.chmod("d/f", 0o777, dir_fd=base)
        with raises(errno.EPERM):
            os.unlink("m/f", dir_fd=base)
        with raises(errno.EACCES):
            os.mkdir("d/n", dir_fd=base)


# Extended attributes.


def test_xattrs(system: System) -> None:
    path = system.root / "d/f"
    assert os.listxattr(path) == ["user.one"]
    with raises(errno.ENODATA):
        os.removexattr(path, "user.none")
    os.setxattr(path, "user.empty", b"")
    os.setxattr(path, "user.one", b"changed")
    system.remount()
    assert sorted(os.listxattr(path)) == ["user.empty", "user.one"]
    assert os.getxattr(path, "user.one") == b"changed"
    os.removexattr(path, "user.one")
    with raises(errno.ENODATA):
        os.getxattr(path, "user.one")
    with raises(errno.EPERM):
        os.setxattr(system.root / "s", "user.one", b"x", follow_symlinks=False)


# Data.


def test_fallocate(system: System) -> None:
    if system.engine == "pyfuse3":  # documented: pyfuse3 has no such request
        with opened(system.root / "a", os.O_RDWR) as fd, raises(errno.EOPNOTSUPP):
            syscalls.fallocate(fd, 0, 0, 1)
        return
    with opened(system.root / "a", os.O_RDWR) as fd:
        syscalls.fallocate(fd, syscalls.FALLOC_FL_PUNCH_HOLE | syscalls.FALLOC_FL_KEEP_SIZE, 2, 4)
        assert os.pread(fd, 8, 0) == b"a \0\0\0\0 o"
        syscalls.fallocate(fd, 0, 0, 5000)
        assert os.fstat(fd).st_size == 5000
        syscalls.fallocate(fd, syscalls.FALLOC_FL_KEEP_SIZE, 0, 100_000)
        assert os.fstat(fd).st_size == 5000


def test_copy_file_range(root: Path) -> None:
    with opened(root / "big") as source, opened(root / "void", os.O_WRONLY) as target:
        assert os.copy_file_range(source, target, 1000, 16, 4) == 1000
    assert (root / "void").read_bytes() == bytes(4) + (b"0123456789abcdef" * 63)[:1000]


def test_holes_stay_holes(system: System) -> None:
    path = system.root / "n"
    with opened(path, os.O_RDWR | os.O_CREAT) as fd:
        os.pwrite(fd, b"end", 10 << 20)
        os.fsync(fd)
    assert path.stat().st_blocks * 512 < 1 << 20
    system.remount()
    assert path.stat().st_blocks * 512 < 1 << 20
    assert path.stat().st_size == (10 << 20) + 3


# Listing.


def test_removing_while_listing_misses_nothing(root: Path) -> None:
    """What rm -r does, with more names than one reply holds, old ones and new ones."""
    names = {f"name-{number:04}" for number in range(1500)}
    for name in names:
        (root / "m" / name).touch()
    seen = []
    with os.scandir(root / "m") as entries:
        for entry in entries:
            seen.append(entry.name)
            os.unlink(entry.path)
    assert sorted(seen) == sorted([*names, "f", "g"])
    (root / "m").rmdir()


def test_promoting_while_listing_repeats_nothing(root: Path) -> None:
    seen = []
    with os.scandir(root / "d") as entries:
        for entry in entries:
            seen.append(entry.name)
            os.chmod(entry.path, 0o755)
            (root / "d/n").touch()
    assert sorted(set(seen) - {"n"}) == ["e", "f", "g", "h", "l"]
    assert len(seen) == len(set(seen))


def test_deep_paths(system: System) -> None:
    """Deeper than any path reaches (PATH_MAX is 4,096 bytes)."""
    depth, name = 60, "n" * 100
    fd = os.open(system.root / "m", os.O_PATH)
    for _ in range(depth):
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_PATH, dir_fd=fd)
        os.close(fd)
        fd = below
    os.mkfifo("end", dir_fd=fd)
    os.close(fd)
    system.remount()
    fd = os.open(system.root / "m", os.O_PATH)
    for _ in range(depth):
        below = os.open(name, os.O_PATH, dir_fd=fd)
        os.close(fd)
        fd = below
    assert stat.S_ISFIFO(os.stat("end", dir_fd=fd).st_mode)
    os.close(fd)


# What only a union has to refuse.

mounts = pytest.mark.parametrize("system", SYSTEMS[1:], indirect=True)


@mounts
def test_marks_are_not_shown_and_others_of_their_names_are_none(system: System) -> None:
    path = system.root / "n"
    (system.root / "d").rename(path)  # leaves a redirect
    assert os.listxattr(path) == []
    names = ("user.overlay.opaque", "user.overlay.redirect", "user.ufs.origin", "user.fuseoverlayfs.opaque")
    for name in (*names, "user.containers.override_stat", "user.overlay.overlay.opaque"):
        with raises(errno.ENODATA):
            os.getxattr(path, name)
        with raises(errno.ENODATA):
            os.removexattr(path, name)
        os.setxattr(path, name, b"y")
    for _ in range(2):
        assert sorted(os.listdir(path)) == ["e", "f", "g", "h", "l"]
        assert os.getxattr(path, "user.overlay.redirect") == b"y"
        assert len(os.listxattr(path)) == 6
        system.remount()
    os.removexattr(path, "user.overlay.redirect")
    assert "user.overlay.redirect" not in os.listxattr(path)
    system.remount()
    assert (path / "f").read_text() == "content of d/f"
