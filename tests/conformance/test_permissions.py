"""Who may do what: modes, groups, search permission, access(2), O_PATH, utimensat(2), sticky directories."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.somebody import IN_ROOTS_GROUP, MATE, OTHER, OWNER, Somebody
from tests.support.systems import opened, raises
from unionfs import syscalls

pytestmark = pytest.mark.only_root

MODES = [0o000, 0o700, 0o070, 0o007, 0o604, 0o640, 0o531, 0o123, 0o355]
OF_THE_TREE = ["a", "d/f", "d/g", "d/e/f", "void", "m/f", "m/g", "big", "d/e/x/f"]
NEW = [f"d/new{number}" for number in range(len(MODES))]


def granted(mode: int, who: Somebody) -> int:
    """The bits of rwx that somebody has on what is OWNER's: those of the first class that fits (path_resolution(7))."""
    if who.uid == OWNER.uid:
        return mode >> 6 & 7
    return (mode >> 3 if OWNER.gid in (who.gid, *who.groups) else mode) & 7


def succeeds(call: Callable[[], object], code: int = errno.EACCES) -> bool:
    try:
        call()
    except OSError as error:
        if error.errno != code:
            raise
        return False
    return True


def reads(name: str) -> Callable[[], object]:
    return lambda: Path(name).read_bytes()


def opens(name: str, flags: int) -> Callable[[], object]:
    return lambda: os.close(os.open(name, flags))


def executes(name: str) -> None:
    """Ends with EACCES, or succeeds: nothing here is a program."""
    try:
        os.execv(name, [name])
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise


@pytest.mark.parametrize("names", [OF_THE_TREE, NEW], ids=["of the tree", "new"])
@pytest.mark.parametrize("who", [OWNER, MATE, OTHER], ids=["owner", "mate", "other"])
def test_modes_of_files(root: Path, names: list[str], who: Somebody) -> None:
    (root / "d/e/x").chmod(0o755)
    for name, mode in zip(names, MODES, strict=True):
        (root / name).touch()
        os.chown(root / name, OWNER.uid, OWNER.gid)
        (root / name).chmod(mode)

    def act() -> None:
        for name, mode in zip(names, MODES, strict=True):
            bits = granted(mode, who)
            for flags, bit in ((os.O_RDONLY, 4), (os.O_WRONLY, 2), (os.O_RDWR, 6)):
                assert succeeds(opens(name, flags)) == (bits & bit == bit), (name, oct(mode), bit)
            assert succeeds(lambda name=name: executes(name)) == bool(bits & 1), (name, oct(mode))
            assert succeeds(lambda name=name: os.truncate(name, 0)) == bool(bits & 2), (name, oct(mode))
            for wanted in range(8):
                for effective in (False, True):
                    found = os.access(name, wanted, effective_ids=effective)
                    assert found == (bits & wanted == wanted), (name, oct(mode), wanted)

    who.may(root, act)


@pytest.mark.parametrize("name", ["d", "d/n"])
@pytest.mark.parametrize("who", [OWNER, MATE, OTHER], ids=["owner", "mate", "other"])
def test_modes_of_directories(root: Path, name: str, who: Somebody) -> None:
    path = root / name
    path.mkdir(exist_ok=True)
    (path / "f").touch()
    os.chown(path, OWNER.uid, OWNER.gid)
    for mode in MODES:
        path.chmod(mode)
        bits = granted(mode, who)

        def act(bits: int = bits) -> None:
            assert succeeds(lambda: os.listdir(name)) == bool(bits & 4)
            assert succeeds(lambda: os.stat(f"{name}/f")) == bool(bits & 1)
            assert succeeds(lambda: os.chdir(name)) == bool(bits & 1)

        def change(bits: int = bits) -> None:
            may = bits & 3 == 3
            assert succeeds(lambda: os.mkdir(f"{name}/made")) == may
            assert succeeds(lambda: Path(f"{name}/made too").symlink_to("x")) == may
            assert succeeds(lambda: os.rename(f"{name}/f", f"{name}/g")) == may
            assert succeeds(lambda: os.unlink(f"{name}/{'g' if may else 'f'}")) == may
            if may:
                Path(f"{name}/f").touch()
                os.unlink(f"{name}/made too")
                os.rmdir(f"{name}/made")

        who.may(root, act)
        who.may(root, change)


def test_what_nobody_changed_is_root_s(root: Path) -> None:
    for who in (IN_ROOTS_GROUP, OTHER):
        who.may(root, reads("d/f"))
        who.may(root, reads("s"))
        who.gets(errno.EACCES, root, opens("d/f", os.O_WRONLY))
        who.gets(errno.EACCES, root, reads("d/e/f"))
        who.gets(errno.EACCES, root, lambda: os.stat("d/e/x/f"))
        who.gets(errno.EACCES, root, lambda: os.listdir("d/e/x"))
        who.gets(errno.EACCES, root, lambda: os.mkdir("d/n"))
        who.gets(errno.EACCES, root, lambda: os.unlink("d/f"))
        who.gets(errno.EACCES, root, lambda: os.rmdir("empty"))
        who.gets(errno.EACCES, root, lambda: os.rename("d", "n"))
        who.gets(errno.EACCES, root, lambda: os.truncate("a", 0))
    IN_ROOTS_GROUP.may(root, lambda: os.mkdir("d/e/n"))
    IN_ROOTS_GROUP.may(root, opens("p", os.O_RDONLY | os.O_NONBLOCK))
    OTHER.gets(errno.EACCES, root, lambda: os.mkdir("d/e/o"))
    OTHER.gets(errno.EACCES, root, opens("p", os.O_RDONLY | os.O_NONBLOCK))


def test_a_directory_moved_keeps_who_may_enter(root: Path) -> None:
    (root / "d/e/x").rename(root / "d/e/y")
    (root / "d").rename(root / "n")
    OTHER.gets(errno.EACCES, root, lambda: os.stat("n/e/y/f"))
    OTHER.may(root, reads("n/f"))


def test_real_and_effective_ids(root: Path) -> None:
    """access(2) asks for the real ones, open(2) and AT_EACCESS for the effective ones."""
    for name in ("d/f", "d/n"):
        (root / name).touch()
        os.chown(root / name, OWNER.uid, OWNER.gid)
        (root / name).chmod(0o600)

    def act() -> None:
        os.setresuid(OTHER.uid, OWNER.uid, OWNER.uid)
        for name in ("d/f", "d/n"):
            assert not os.access(name, os.R_OK)
            assert os.access(name, os.R_OK, effective_ids=True)
            Path(name).read_bytes()

    Somebody(0, 0).may(root, act)


def test_root_needs_one_execute_bit(root: Path) -> None:
    for name in ("d/f", "d/n"):
        (root / name).touch()
        (root / name).chmod(0o000)
        (root / name).read_bytes()
        assert not os.access(root / name, os.X_OK)
        with raises(errno.EACCES):
            os.execv(root / name, ["x"])
        (root / name).chmod(0o001)
        assert os.access(root / name, os.X_OK)


@pytest.mark.parametrize("name", ["d/f", "d/n"])
def test_a_descriptor_keeps_the_rights_it_was_opened_with(root: Path, name: str) -> None:
    (root / name).write_text("content")
    os.chown(root / name, OWNER.uid, OWNER.gid)

    def act() -> None:
        with opened(Path(name), os.O_RDWR) as fd:
            os.chmod(name, 0)
            assert not succeeds(opens(name, os.O_RDONLY))
            assert os.pread(fd, 7, 0) == b"content"
            os.pwrite(fd, b"C", 0)
            os.ftruncate(fd, 3)
            assert not succeeds(opens(f"/proc/self/fd/{fd}", os.O_RDWR))
        with opened(Path(name), os.O_PATH) as fd:
            assert stat.S_IMODE(os.fstat(fd).st_mode) == 0
            assert not succeeds(lambda: os.read(fd, 1), errno.EBADF)
            assert not succeeds(opens(f"/proc/self/fd/{fd}", os.O_RDONLY))
            os.chmod(f"/proc/self/fd/{fd}", 0o400)
            os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY))

    OWNER.may(root, act)
    assert (root / name).read_text() == "Con"


# Attributes.


def test_only_the_owner_changes_the_mode(root: Path) -> None:
    for name in ("d/f", "d", "d/n"):
        if name == "d/n":
            (root / name).mkdir()
        OTHER.gets(errno.EPERM, root, lambda name=name: os.chmod(name, 0o777))
        os.chown(root / name, OWNER.uid, OWNER.gid)
        MATE.gets(errno.EPERM, root, lambda name=name: os.chmod(name, 0o777))
        OWNER.may(root, lambda name=name: os.chmod(name, 0o711))
        assert stat.S_IMODE((root / name).stat().st_mode) == 0o711


UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2  # include/linux/stat.h


def utimens(name: str, atime: int, mtime: int) -> None:
    """utimensat(2) with what os.utime has not: `atime` and `mtime` are tv_nsec."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.utimensat(-100, os.fsencode(name), (ctypes.c_long * 4)(0, atime, 0, mtime), 0):
        raise OSError(ctypes.get_errno(), name)


@pytest.mark.parametrize("name", ["d/f", "d/n"])
def test_times_are_set_by_the_owner_and_touched_by_who_may_write(root: Path, name: str) -> None:
    (root / name).touch()
    os.chown(root / name, OWNER.uid, OWNER.gid)
    (root / name).chmod(0o464)
    OWNER.may(root, lambda: utimens(name, 1, 2))  # needs no right to write
    assert (root / name).stat().st_mtime_ns == 2
    MATE.gets(errno.EPERM, root, lambda: utimens(name, 3, 4))
    MATE.gets(errno.EPERM, root, lambda: utimens(name, UTIME_NOW, UTIME_OMIT))
    MATE.gets(errno.EPERM, root, lambda: utimens(name, UTIME_NOW, 4))
    OTHER.gets(errno.EPERM, root, lambda: utimens(name, 3, 4))
    OTHER.gets(errno.EACCES, root, lambda: utimens(name, UTIME_NOW, UTIME_NOW))
    OTHER.gets(errno.EACCES, root, lambda: os.utime(name))
    OTHER.may(root, lambda: utimens(name, UTIME_OMIT, UTIME_OMIT))
    assert (root / name).stat().st_mtime_ns == 2
    MATE.may(root, lambda: utimens(name, UTIME_NOW, UTIME_NOW))
    assert (root / name).stat().st_mtime_ns > 2


def test_extended_attributes_need_what_data_needs(root: Path) -> None:
    OTHER.gets(errno.EACCES, root, lambda: os.setxattr("d/f", "user.n", b"x"))
    OTHER.gets(errno.EACCES, root, lambda: os.removexattr("d/f", "user.one"))
    OTHER.may(root, lambda: os.getxattr("d/f", "user.one"))
    (root / "d/f").chmod(0o602)
    OTHER.may(root, lambda: os.setxattr("d/f", "user.n", b"x"))
    OTHER.gets(errno.EACCES, root, lambda: os.getxattr("d/f", "user.n"))
    OTHER.gets(errno.EPERM, root, lambda: os.setxattr("m", "user.n", b"x"))  # a sticky directory's are its owner's
    OTHER.gets(errno.EPERM, root, lambda: os.setxattr("d/f", "trusted.n", b"x"))


def test_noatime_is_for_the_owner(root: Path) -> None:
    OTHER.gets(errno.EPERM, root, opens("d/f", os.O_RDONLY | os.O_NOATIME))
    os.chown(root / "d/f", OWNER.uid, OWNER.gid)
    OWNER.may(root, opens("d/f", os.O_RDONLY | os.O_NOATIME))
    MATE.gets(errno.EPERM, root, opens("d/f", os.O_RDONLY | os.O_NOATIME))


def test_devices_are_root_s(root: Path) -> None:
    for kind in (stat.S_IFCHR, stat.S_IFBLK):
        OTHER.gets(errno.EPERM, root, lambda kind=kind: os.mknod("m/n", kind | 0o600, os.makedev(1, 3)))


# Sticky directories.


def exchange(old: str, new: str) -> None:
    here = syscalls.AT_FDCWD
    syscalls.renameat2(here, old.encode(), here, new.encode(), syscalls.RENAME_EXCHANGE)


@pytest.mark.parametrize("name", ["m", "d/n"])
def test_sticky_directories(root: Path, name: str) -> None:
    path = root / name
    path.mkdir(exist_ok=True)
    path.chmod(0o1777)
    for file in ("f", "g"):
        (path / file).touch()
    MATE.may(root, lambda: Path(f"{name}/mate's").touch())
    MATE.may(root, lambda: os.mkdir(f"{name}/mate's dir"))
    attempts: list[Callable[[], object]] = [
        lambda: os.unlink(f"{name}/f"),
        lambda: os.unlink(f"{name}/mate's"),
        lambda: os.rmdir(f"{name}/mate's dir"),
        lambda: os.rename(f"{name}/f", f"{name}/n"),
        lambda: os.rename(f"{name}/mate's dir", f"{name}/n"),
        lambda: os.rename(f"{name}/own", f"{name}/f"),
        lambda: os.rename(f"{name}/own", f"{name}/mate's"),
        lambda: exchange(f"{name}/own", f"{name}/mate's"),
        lambda: exchange(f"{name}/g", f"{name}/own"),
    ]

    def act() -> None:
        Path(f"{name}/own").touch()
        for attempt in attempts:
            assert not succeeds(attempt, errno.EPERM)
        os.rename(f"{name}/own", f"{name}/still own")
        os.unlink(f"{name}/still own")

    OTHER.may(root, act)
    assert sorted(os.listdir(path)) == sorted([*({"f", "g"} | {"mate's", "mate's dir"})])

    def own_what_others_left() -> None:
        os.unlink(f"{name}/f")
        os.rename(f"{name}/mate's", f"{name}/g")
        os.rmdir(f"{name}/mate's dir")

    os.chown(path, OWNER.uid, OWNER.gid)
    path.chmod(0o1777)
    OWNER.may(root, own_what_others_left)
    assert os.listdir(path) == ["g"]


def test_a_directory_of_another_s_is_not_moved_to_another_parent(root: Path) -> None:
    """Its `..` changes, so the right to write in it is needed (vfs_rename() in fs/namei.c)."""
    for name in ("m", "d"):
        (root / name).chmod(0o777)
    (root / "m/new").mkdir()
    (root / "m/new").chmod(0o755)
    for name in ("m/new", "d/e"):
        (root / name).chmod(0o755)
        OTHER.gets(errno.EACCES, root, lambda name=name: os.rename(name, "d/n" if name[0] == "m" else "m/n"))
        OTHER.may(root, lambda name=name: os.rename(name, f"{name}2"))
