"""Owners, groups and the set-id bits: chown(2), chmod(2), set-group-ID directories, and what writing takes away.

Which bits go is setattr_should_drop_suidgid() and setattr_prepare() of fs/attr.c; inode(7) tells it in short.
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import stat
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.somebody import MATE, OTHER, OWNER, Somebody
from tests.support.statx import mode_alone
from tests.support.systems import OVERRIDDEN, SYSTEMS, System, opened, raises
from tests.support.users import is_real_root
from unionfs import syscalls

pytestmark = [
    pytest.mark.only_root,
    pytest.mark.parametrize("system", [*SYSTEMS, *OVERRIDDEN], indirect=True),
]

LOWER, NEW = "d/f", "d/n"
BY_ROOT = Somebody(0, 0), 0o6777, 0o6777 if is_real_root() else 0o777
"""Only CAP_FSETID in the initial user namespace keeps set-id bits (setattr_should_drop_suidgid() in fs/attr.c)."""

names = pytest.mark.parametrize("name", [LOWER, NEW])


def mode(path: Path) -> int:
    """What execve(2) goes by, too: whether the kernel believes the same as who asks for all there is."""
    known = mode_alone(path)
    assert oct(known) == oct(stat.S_IMODE(path.lstat().st_mode))
    return known


def owners(path: Path) -> tuple[int, int]:
    info = path.lstat()
    return info.st_uid, info.st_gid


def given(path: Path, uid: int = OWNER.uid, gid: int = OWNER.gid, bits: int = 0o644) -> Path:
    """The file, made where it is not of the tree, with these owners and this mode."""
    if not os.path.lexists(path):
        path.write_text("content")
    os.chown(path, uid, gid, follow_symlinks=False)
    path.chmod(bits)
    return path


# Set-id bits that go when a file changes.


def by_descriptor(act: Callable[[int], object]) -> Callable[[str], None]:
    def change(name: str) -> None:
        with opened(Path(name), os.O_RDWR) as fd:
            act(fd)

    return change


def cut_when_opened(name: str) -> None:
    os.close(os.open(name, os.O_WRONLY | os.O_TRUNC))


def unbuffered(name: str) -> None:
    with mmap.mmap(-1, 4096) as block, opened(Path(name), os.O_RDWR | os.O_DIRECT) as fd:
        os.write(fd, block)


def spliced(fd: int) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"x")
    os.splice(reading, fd, 1)
    os.close(reading)
    os.close(writing)


CHANGES: dict[str, Callable[[str], object]] = {
    "write": by_descriptor(lambda fd: os.write(fd, b"x")),
    "append": lambda name: os.write(fd := os.open(name, os.O_WRONLY | os.O_APPEND), b"x") and os.close(fd),
    "O_DIRECT": unbuffered,
    "vectors": by_descriptor(lambda fd: os.pwritev(fd, [b"x", b"y"], 1, os.RWF_DSYNC)),
    "splice": by_descriptor(spliced),
    "truncate": lambda name: os.truncate(name, 3),
    "ftruncate": by_descriptor(lambda fd: os.ftruncate(fd, 3)),
    "O_TRUNC": cut_when_opened,
}
"""By everybody who may write the file."""


@names
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_changing_the_content_takes_set_id_bits(system: System, name: str, change: Callable[[str], object]) -> None:
    path = system.root / name
    cases = [
        (OWNER, 0o6777, 0o777),
        (OWNER, 0o4644, 0o644),
        (OTHER, 0o6777, 0o777),
        (OWNER, 0o2766, 0o2766),  # no program is run for the group by that bit, and the writer is in the group
        (OTHER, 0o1777, 0o1777),
        BY_ROOT,
    ]
    if system.engine != "pyfuse3":  # for which the kernel itself takes the bits, as fuse_setattr() has it
        cases += [(OTHER, 0o2766, 0o766), (OTHER, 0o6766, 0o766)]
    for who, before, after in cases:
        given(path, bits=before)
        who.may(system.root, lambda: change(name))
        assert oct(mode(path)) == oct(after), (who, oct(before))


@names
def test_allocating_takes_set_id_bits(system: System, name: str) -> None:
    if system.engine == "pyfuse3":
        return  # it has no fallocate
    path = system.root / name
    keep, zero = syscalls.FALLOC_FL_KEEP_SIZE, 0x10  # FALLOC_FL_ZERO_RANGE
    for who, before, after in ((OWNER, 0o6777, 0o777), (OTHER, 0o2766, 0o766), BY_ROOT):
        for kind in (0, keep, keep | syscalls.FALLOC_FL_PUNCH_HOLE, zero, keep | zero):
            given(path, bits=before)
            allocate = by_descriptor(lambda fd, kind=kind: syscalls.fallocate(fd, kind, 0, 4096))
            who.may(system.root, lambda allocate=allocate: allocate(name))
            assert oct(mode(path)) == oct(after), (who, kind)


@names
def test_copying_into_a_file_takes_set_id_bits(root: Path, name: str) -> None:
    path = root / name
    for who, before, after in ((OWNER, 0o6777, 0o777), (OTHER, 0o4666, 0o666), BY_ROOT):
        given(path, bits=before)

        def copy(fd: int) -> None:
            with opened(Path("big")) as source:
                assert os.copy_file_range(source, fd, 100) == 100

        who.may(root, lambda copy=copy: by_descriptor(copy)(name))
        assert oct(mode(path)) == oct(after), who


@names
def test_a_program_that_was_written_gives_nobody_its_owner_s_rights(root: Path, name: str) -> None:
    shutil.copy("/usr/bin/id", root / name)
    given(root / name, 0, 0, 0o6777)

    def write_and_run() -> None:
        with open(name, "ab") as program:
            program.write(b"x")
        assert subprocess.check_output([f"./{name}", "-u"]) == b"%d\n" % OTHER.uid

    OTHER.may(root, write_and_run)


@pytest.mark.real_root  # docs/union.md, "Known limits"
@names
def test_a_shared_mapping_takes_no_bits(root: Path, name: str) -> None:
    """As on a disk: no file system looks at who touches a page (file_update_time() is all that they do)."""
    path = given(root / name, bits=0o6777)

    def write() -> None:
        with opened(Path(name), os.O_RDWR) as fd, mmap.mmap(fd, 0) as mapping:
            mapping[0] = 1
            mapping.flush()

    OTHER.may(root, write)
    assert oct(mode(path)) == oct(0o6777)


@names
def test_reading_and_metadata_take_no_bits(root: Path, name: str) -> None:
    path = given(root / name, bits=0o6755)

    def act() -> None:
        Path(name).read_bytes()
        os.utime(name, (1, 1))
        os.setxattr(name, "user.n", b"x")
        os.link(name, f"{name}2")
        os.rename(f"{name}2", f"{name}3")

    (root / "d").chmod(0o777)
    OWNER.may(root, act)
    assert mode(path) == mode(root / f"{name}3") == 0o6755


# chown.


@names
def test_a_new_owner_gets_no_set_id_bits(root: Path, name: str) -> None:
    path = root / name
    for before, after in ((0o6755, 0o755), (0o4644, 0o644), (0o2745, 0o2745), (0o6745, 0o2745)):
        for uid, gid in ((OTHER.uid, -1), (-1, OTHER.gid), (OTHER.uid, OTHER.gid)):
            given(path, bits=before)
            os.chown(path, uid, gid)
            assert oct(mode(path)) == oct(after), (oct(before), uid, gid)


@names
def test_changing_takes_capabilities(root: Path, name: str) -> None:
    """Whoever does it (cap_inode_need_killpriv() in security/commoncap.c)."""
    capability = struct.pack("<5I", 0x2000001, 1 << 10, 0, 0, 0)  # VFS_CAP_REVISION_2, effective; CAP_NET_BIND_SERVICE
    path = given(root / name)
    for change in (*CHANGES.values(), lambda name: os.chown(name, OWNER.uid, -1)):
        os.setxattr(path, "security.capability", capability)
        assert os.getxattr(path, "security.capability") == capability
        Somebody(0, 0).may(root, lambda change=change: change(name))
        with raises(errno.ENODATA):
            os.getxattr(path, "security.capability")
        assert "security.capability" not in os.listxattr(path)


@names
def test_a_new_group_by_the_owner_takes_the_bits(root: Path, name: str) -> None:
    owner = Somebody(OWNER.uid, OWNER.gid, (4100,))
    path = root / name
    for before, after in ((0o6755, 0o755), (0o4745, 0o745)):
        given(path, bits=before)
        owner.may(root, lambda: os.chown(name, -1, 4100))
        assert (owners(path), oct(mode(path))) == ((OWNER.uid, 4100), oct(after))


def test_directories_keep_their_bits(root: Path) -> None:
    for name in ("d/e", "n"):
        (root / name).mkdir(exist_ok=True)
        (root / name).chmod(0o7775)
        os.chown(root / name, OWNER.uid, OWNER.gid)
        assert (owners(root / name), mode(root / name)) == ((OWNER.uid, OWNER.gid), 0o7775)


@names
def test_who_may_give_a_file_away(root: Path, name: str) -> None:
    path = given(root / name)
    owner = Somebody(OWNER.uid, OWNER.gid, (4100,))
    owner.gets(errno.EPERM, root, lambda: os.chown(name, OTHER.uid, -1))
    owner.gets(errno.EPERM, root, lambda: os.chown(name, -1, OTHER.gid))
    owner.gets(errno.EPERM, root, lambda: os.chown(name, OTHER.uid, 4100))
    owner.may(root, lambda: os.chown(name, OWNER.uid, -1))  # to oneself
    owner.may(root, lambda: os.chown(name, -1, 4100))
    for who in (MATE, OTHER):
        who.gets(errno.EPERM, root, lambda who=who: os.chown(name, who.uid, -1))
        who.gets(errno.EPERM, root, lambda who=who: os.chown(name, -1, who.gid))
    assert owners(path) == (OWNER.uid, 4100)


def test_owners_of_everything_last(system: System) -> None:
    root = system.root
    os.mkfifo(root / "n")
    (root / "o").symlink_to("nowhere")
    everything = ["d/f", "d", "s", "p", "a", "n", "o", "big", "d/l"]
    for number, name in enumerate(everything):
        os.chown(root / name, 5000 + number, 6000 + number, follow_symlinks=False)
    system.remount()
    for number, name in enumerate(everything):
        assert owners(root / name) == (5000 + number, 6000 + number), name
    assert owners(root / "b") == owners(root / "d/h") == owners(root / "a")
    assert owners(root / "q") == owners(root / "p")
    os.chown(root / "s", 7000, 7000)  # follows it
    assert owners(root / "d/f") == (7000, 7000)
    os.chown(root / "d/f", -1, 7001)
    assert owners(root / "d/f") == (7000, 7001)


# chmod.


@names
def test_set_group_id_is_for_members(root: Path, name: str) -> None:
    path = given(root / name, gid=4100)
    OWNER.may(root, lambda: os.chmod(name, 0o6755))
    assert mode(path) == 0o4755
    Somebody(OWNER.uid, OWNER.gid, (4100,)).may(root, lambda: os.chmod(name, 0o7755))
    assert mode(path) == 0o7755


# What is made.


def test_what_is_made_is_its_maker_s(system: System) -> None:
    made = ["file", "dir", "fifo", "link"]

    def act() -> None:
        os.umask(0o027)
        os.close(os.open("m/file", os.O_CREAT | os.O_WRONLY, 0o666))
        os.mkdir("m/dir")
        os.mkfifo("m/fifo")
        os.symlink("f", "m/link")

    OTHER.may(system.root, act)
    system.remount()
    assert [owners(system.root / "m" / name) for name in made] == [(OTHER.uid, OTHER.gid)] * 4
    assert [mode(system.root / "m" / name) for name in made] == [0o640, 0o750, 0o640, 0o777]


@pytest.mark.parametrize("name", ["d/e", "n"])
def test_set_group_id_directories(system: System, name: str) -> None:
    root = system.root
    (root / name).mkdir(exist_ok=True)
    os.chown(root / name, 0, 4100)
    (root / name).chmod(0o2777)

    def act() -> None:
        os.umask(0)
        for number, bits in enumerate((0o644, 0o2755, 0o2745, 0o6777)):
            os.close(os.open(f"{name}/{number}", os.O_CREAT | os.O_WRONLY, bits))
        os.mkdir(f"{name}/dir", 0o755)
        os.mkdir(f"{name}/dir/deeper", 0o700)
        os.mkfifo(f"{name}/fifo", 0o640)
        os.symlink("f", f"{name}/link")

    OTHER.may(root, act)
    system.remount()
    for child in ("0", "1", "2", "3", "dir", "dir/deeper", "fifo", "link"):
        assert owners(root / name / child) == (OTHER.uid, 4100), child
    # Who is not in the group cannot make a program that runs with it (mode_strip_sgid() in fs/inode.c).
    assert [oct(mode(root / name / str(number))) for number in range(4)] == ["0o644", "0o755", "0o2745", "0o4777"]
    assert [oct(mode(root / name / child)) for child in ("dir", "dir/deeper", "fifo")] == ["0o2755", "0o2700", "0o640"]


def test_moving_changes_no_group(root: Path) -> None:
    os.chown(root / "d/e", 0, 4100)
    (root / "d/e").chmod(0o2777)
    (root / "void").rename(root / "d/e/void")
    os.link(root / "a", root / "d/e/a")
    assert owners(root / "d/e/void") == owners(root / "d/e/a") == (0, 0)


def test_a_file_is_replaced_by_another_owner_s(root: Path) -> None:
    """What takes a removed name's place has nothing of it, neither in an upper nor over a whiteout."""
    given(root / "m/f", bits=0o4777)
    (root / "m").chmod(0o777)
    OTHER.may(root, lambda: (os.unlink("m/f"), os.unlink("m/g"), Path("m/f").touch(), os.mkdir("m/g")))
    assert owners(root / "m/f") == owners(root / "m/g") == (OTHER.uid, OTHER.gid)
    assert (mode(root / "m/f"), mode(root / "m/g")) == (0o644, 0o755)
