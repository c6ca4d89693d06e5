"""open(2): each flag, each kind of file, the errnos of what cannot be opened; for files of the tree and new ones."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.systems import System, opened, raises

LOWER, NEW = "d/f", "d/new"


@pytest.fixture(params=[LOWER, NEW])
def file(request: pytest.FixtureRequest, root: Path) -> Path:
    """A file with the content "content of d/f", of the tree or in the upper alone."""
    path: Path = root / request.param
    if request.param == NEW:
        path.write_text("content of d/f")
    return path


def is_refused(path: str | Path, flags: int, code: int) -> None:
    with raises(code):
        os.close(os.open(path, flags, 0o600))


# Creating and cutting.


def test_exclusive_creation(root: Path, file: Path) -> None:
    for path in (file, root / "d", root / "s", root / "p", root / "t"):
        is_refused(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, errno.EEXIST)
    (root / "dangling").symlink_to("nowhere")
    is_refused(root / "dangling", os.O_CREAT | os.O_EXCL | os.O_RDWR, errno.EEXIST)
    assert not (root / "nowhere").exists()
    file.unlink()
    os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR))
    is_refused(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, errno.EEXIST)
    assert file.read_bytes() == b""


def test_creation_follows_a_dangling_link(root: Path) -> None:
    (root / "dangling").symlink_to("d/made")
    with opened(root / "dangling", os.O_CREAT | os.O_WRONLY) as fd:
        os.write(fd, b"x")
    assert (root / "d/made").read_bytes() == b"x"


def test_creation_opens_what_is_there(root: Path, file: Path) -> None:
    before = file.stat()
    fd = os.open(file, os.O_CREAT | os.O_RDWR, 0o000)
    assert os.read(fd, 7) == b"content"
    os.close(fd)
    assert file.stat().st_mode == before.st_mode
    assert file.stat().st_mtime_ns == before.st_mtime_ns


def test_a_file_may_be_made_without_the_right_to_open_it_again(root: Path) -> None:
    fd = os.open(root / "d/made", os.O_CREAT | os.O_RDWR, 0o000)
    os.write(fd, b"written")
    assert os.pread(fd, 7, 0) == b"written"
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0
    os.close(fd)


def test_cutting(system: System, file: Path) -> None:
    with opened(file) as reader:
        assert os.pread(reader, 100, 0) == b"content of d/f"
        fd = os.open(file, os.O_RDWR | os.O_TRUNC)
        assert os.fstat(fd).st_size == os.fstat(reader).st_size == 0
        assert os.pread(reader, 100, 0) == b""
        os.pwrite(fd, b"x", 3)
        assert os.pread(reader, 100, 0) == b"\0\0\0x"
        os.close(fd)
    system.remount()
    assert file.read_bytes() == b"\0\0\0x"


def test_cutting_what_is_cut_already_makes_it_younger(root: Path) -> None:
    before = (root / "void").stat().st_mtime_ns
    os.close(os.open(root / "void", os.O_WRONLY | os.O_TRUNC))
    assert (root / "void").stat().st_mtime_ns > before


# Writing.


def test_two_that_append(file: Path) -> None:
    with opened(file, os.O_WRONLY | os.O_APPEND) as one, opened(file, os.O_RDWR | os.O_APPEND) as other:
        for number in range(10):
            os.write(one if number % 2 else other, b"%d" % number)
        os.lseek(other, 0, os.SEEK_SET)
        os.write(other, b"!")
        assert os.lseek(other, 0, os.SEEK_CUR) == len("content of d/f") + 11
    assert file.read_bytes() == b"content of d/f0123456789!"


def test_appending_processes_lose_nothing(file: Path) -> None:
    children = []
    for number in range(4):
        pid = os.fork()
        if not pid:
            status = 1
            try:
                fd = os.open(file, os.O_WRONLY | os.O_APPEND)
                for _ in range(50):
                    os.write(fd, b"%d" % number * 10)
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    content = file.read_bytes().removeprefix(b"content of d/f")
    records = [content[at : at + 10] for at in range(0, len(content), 10)]
    assert sorted(records) == sorted(b"%d" % number * 10 for number in range(4) for _ in range(50))


def test_the_mode_of_opening_counts(file: Path) -> None:
    with opened(file) as fd:
        with raises(errno.EBADF):
            os.write(fd, b"x")
        with raises(errno.EINVAL):
            os.ftruncate(fd, 0)
    with opened(file, os.O_WRONLY) as fd, raises(errno.EBADF):
        os.read(fd, 1)


@pytest.mark.parametrize("flag", [os.O_SYNC, os.O_DSYNC, os.O_NONBLOCK, os.O_NOCTTY, os.O_LARGEFILE, os.O_NOATIME])
def test_flags_that_change_nothing_here(system: System, file: Path, flag: int) -> None:
    with opened(file, os.O_RDWR | flag) as fd:
        assert os.pread(fd, 7, 0) == b"content"
        os.pwrite(fd, b"CONTENT", 0)
        os.fsync(fd)
        os.fdatasync(fd)
    system.remount()
    assert file.read_bytes() == b"CONTENT of d/f"


@pytest.mark.parametrize("name", ["big", "new"])
def test_direct_input_and_output(system: System, name: str) -> None:
    """O_DIRECT, with what is aligned to 4 KiB; and together with descriptors that go by the cache."""
    path = system.root / name
    if name == "new":
        shutil.copy(system.root / "big", path)
    block = 4096
    with mmap.mmap(-1, 16 * block) as room, opened(path, os.O_RDWR | os.O_DIRECT) as fd, opened(path) as cached:
        assert os.pread(cached, 4, block) == b"0123"
        assert os.preadv(fd, [room], 2 * block) == len(room)
        assert room[:16] == b"0123456789abcdef"
        room[:] = b"D" * len(room)
        assert os.pwritev(fd, [room], block) == len(room)
        assert os.pread(cached, 2, block) == b"DD"
        size = path.stat().st_size
        assert os.preadv(fd, [room], size // block * block) == size % block
        assert os.pwritev(fd, [memoryview(room)[:block]], 400 * block) == block
        assert os.fstat(fd).st_size == 401 * block
    system.remount()
    content = path.read_bytes()
    assert content[:block].endswith(b"f")
    assert content[block : 17 * block] == b"D" * 16 * block
    assert content[17 * block : 17 * block + 4] == b"0123"


# Kinds of files.


def test_directories(root: Path) -> None:
    (root / "d/made").mkdir()
    for path in (root / "d", root / "d/e", root / "d/made"):
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_RDONLY | os.O_CREAT):
            is_refused(path, flags, errno.EISDIR)
        with opened(path, os.O_DIRECTORY) as fd:
            assert os.path.samestat(os.fstat(fd), path.stat())
            with raises(errno.EISDIR):
                os.read(fd, 1)
            os.fsync(fd)
            os.fdatasync(fd)
    with raises(errno.EISDIR):
        os.truncate(root / "d", 0)
    for name in (LOWER, "p", "void"):
        is_refused(root / name, os.O_DIRECTORY, errno.ENOTDIR)
    is_refused(root / "s", os.O_DIRECTORY, errno.ENOTDIR)
    os.close(os.open(root / "t", os.O_DIRECTORY))


def test_links_that_are_not_followed(root: Path) -> None:
    (root / "made").symlink_to("d/f")
    for name in ("s", "t", "d/l", "made"):
        is_refused(root / name, os.O_NOFOLLOW, errno.ELOOP)
        is_refused(root / name, os.O_NOFOLLOW | os.O_CREAT | os.O_WRONLY, errno.ELOOP)
        is_refused(root / name, os.O_NOFOLLOW | os.O_DIRECTORY, errno.ENOTDIR)
        with opened(root / name, os.O_NOFOLLOW | os.O_PATH) as fd:
            assert stat.S_ISLNK(os.fstat(fd).st_mode)
            assert os.readlink("", dir_fd=fd) == os.readlink(root / name)
    os.close(os.open(root / "t/f", os.O_NOFOLLOW))  # only the last name counts


def test_links_in_circles_and_long_chains(root: Path) -> None:
    (root / "itself").symlink_to("itself")
    is_refused(root / "itself", os.O_RDONLY, errno.ELOOP)
    is_refused(root / "itself", os.O_CREAT | os.O_WRONLY, errno.ELOOP)
    is_refused(root / "itself/f", os.O_RDONLY, errno.ELOOP)
    (root / "0").symlink_to("d/f")
    for number in range(40):
        (root / str(number + 1)).symlink_to(str(number))
    assert (root / "39").read_text() == "content of d/f"  # 40 links: MAXSYMLINKS of include/linux/namei.h
    is_refused(root / "40", os.O_RDONLY, errno.ELOOP)


@pytest.mark.parametrize("name", ["p", "q", "new"])
def test_fifos(root: Path, name: str) -> None:
    path = root / name
    if name == "new":
        os.mkfifo(path)
    is_refused(path, os.O_WRONLY | os.O_NONBLOCK, errno.ENXIO)
    with opened(path, os.O_RDONLY | os.O_NONBLOCK) as reader, opened(path, os.O_WRONLY | os.O_NONBLOCK) as writer:
        os.write(writer, b"through")
        assert os.read(reader, 100) == b"through"
        os.chmod(path, 0o600)  # promotes it while it is open
        os.write(writer, b"still")
        with opened(path, os.O_RDONLY | os.O_NONBLOCK) as another:
            assert os.read(another, 100) == b"still"
    assert path.stat().st_size == 0
    with raises(errno.EINVAL):
        os.truncate(path, 0)


@pytest.mark.real_root
def test_device_nodes_work(system: System) -> None:
    for name, number in (("null", 3), ("zero", 5), ("nowhere", 250)):
        major = 1 if name != "nowhere" else 250
        os.mknod(system.root / name, stat.S_IFCHR | 0o666, os.makedev(major, number))
    (system.root / "d").chmod(0o755)
    os.link(system.root / "null", system.root / "d/null")
    for _ in range(2):
        with opened(system.root / "d/null", os.O_RDWR) as fd:
            assert os.write(fd, b"x" * 100) == 100
            assert os.read(fd, 1) == b""
        with opened(system.root / "zero") as fd:
            assert os.read(fd, 3) == bytes(3)
        is_refused(system.root / "nowhere", os.O_RDONLY, errno.ENXIO)
        assert (system.root / "null").stat().st_nlink == 2
        system.remount()


# Paths.


def test_slashes_at_the_end(root: Path, file: Path) -> None:
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_PATH):
        is_refused(f"{file}/", flags, errno.ENOTDIR)
        is_refused(f"{file}/.", flags, errno.ENOTDIR)
        is_refused(f"{file}/x", flags, errno.ENOTDIR)
        is_refused(f"{root}/s/", flags, errno.ENOTDIR)
    is_refused(f"{root}/nothing/", os.O_RDONLY, errno.ENOENT)
    is_refused(f"{root}/nothing/", os.O_CREAT | os.O_WRONLY, errno.EISDIR)
    with opened(Path(f"{root}/t/./../d//e/../f")) as fd:
        assert os.read(fd, 7) == b"content"
    os.close(os.open(f"{root}/t/", os.O_RDONLY))
    os.close(os.open(f"{root}/t/", os.O_NOFOLLOW))
    is_refused("", os.O_RDONLY, errno.ENOENT)


def test_what_is_missing(root: Path) -> None:
    is_refused(root / "nothing", os.O_RDONLY, errno.ENOENT)
    is_refused(root / "nothing", os.O_RDWR | os.O_TRUNC, errno.ENOENT)
    is_refused(root / "nothing/f", os.O_CREAT | os.O_WRONLY, errno.ENOENT)
    is_refused(root / "d/old", os.O_RDONLY, errno.ENOENT)
    (root / "d/f").unlink()
    is_refused(root / "d/f", os.O_RDONLY, errno.ENOENT)
    is_refused(root / "s", os.O_RDONLY, errno.ENOENT)
    assert os.readlink(root / "s") == "d/f"


# Programs.


@contextmanager
def running(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([path, "1000"]) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("name", [LOWER, "made"])
def test_busy_programs(root: Path, name: str) -> None:
    path = root / name
    shutil.copyfile("/bin/sleep", path)
    path.chmod(0o755)
    with running(path):
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
            is_refused(path, flags, errno.ETXTBSY)
        with raises(errno.ETXTBSY):
            os.truncate(path, 0)
        os.chmod(path, 0o700)
        path.rename(root / "moved")
        (root / "moved").unlink()
    shutil.copyfile("/bin/sleep", path)
    path.chmod(0o755)
    with opened(path, os.O_WRONLY), raises(errno.ETXTBSY):
        os.execv(path, ["sleep"])
    with running(path) as process:
        assert process.poll() is None


# Descriptors of what has no name any more.


def test_a_file_without_a_name(root: Path, file: Path) -> None:
    with opened(file) as fd, opened(file, os.O_PATH) as path_fd:
        file.unlink()
        for each in (fd, path_fd):
            assert os.fstat(each).st_nlink == 0
            assert os.readlink(f"/proc/self/fd/{each}").endswith(" (deleted)")
        with opened(Path(f"/proc/self/fd/{path_fd}"), os.O_RDWR) as again:
            assert os.pread(again, 7, 0) == b"content"
            os.pwrite(again, b"CONTENT", 0)
            os.ftruncate(again, 20)
        assert os.pread(fd, 100, 0) == b"CONTENT of d/f" + bytes(6)
        with raises(errno.ENOENT):
            os.link(f"/proc/self/fd/{fd}", root / "again", src_dir_fd=0, follow_symlinks=True)
        file.mkdir()
        assert os.pread(fd, 7, 0) == b"CONTENT"


def test_a_file_that_was_replaced(root: Path, file: Path) -> None:
    (root / "other").write_text("other")
    with opened(file) as fd:
        (root / "other").rename(file)
        assert os.fstat(fd).st_nlink == 0
        assert os.read(fd, 100) == b"content of d/f"
        assert file.read_text() == "other"
        assert os.fstat(fd).st_ino != file.stat().st_ino


def test_a_descriptor_goes_with_the_file_not_the_name(root: Path, file: Path) -> None:
    with opened(file, os.O_RDWR) as fd:
        file.rename(root / "m/moved")
        (root / "m").rename(root / "d/m")
        os.pwrite(fd, b"CONTENT", 0)
        assert os.readlink(f"/proc/self/fd/{fd}") == str(root.resolve() / "d/m/moved")
        os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY))
    assert (root / "d/m/moved").read_bytes() == b"CONTENT of d/f"


@pytest.mark.parametrize("name", ["d", "n"])
def test_directories_are_found_by_descriptor(root: Path, name: str) -> None:
    (root / name).mkdir(exist_ok=True)
    (root / name / "deep").mkdir()
    with opened(root / name, os.O_PATH) as fd:
        (root / name).rename(root / "m/moved")
        os.mkdir("deep/made", dir_fd=fd)
        with opened(Path(f"/proc/self/fd/{fd}/deep/../deep"), os.O_DIRECTORY) as deep:
            assert os.listdir(deep) == ["made"]
    assert (root / "m/moved/deep/made").is_dir()
