"""What moves and reserves bytes: fallocate, lseek, copy_file_range, FICLONE, sendfile, splice, preadv, sync."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conformance.big import CONTENT, check
from tests.support.content import BIG
from tests.support.systems import System, opened, raises
from unionfs import syscalls
from unionfs.syscalls import FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE

COLLAPSE_RANGE, ZERO_RANGE, INSERT_RANGE = 0x08, 0x10, 0x20  # include/uapi/linux/falloc.h
BLOCK = 4096


def _refused(call: Callable[[], object]) -> bool:
    """Whether a call that not every file system has is refused as one that it has not."""
    try:
        call()
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return True
    return False


# fallocate(2). pyfuse3 does not have it, and the kernel passes no file system in user space the modes that move data.


def _zeroed(start: int, length: int) -> bytes:
    return CONTENT[:start] + bytes(length) + CONTENT[start + length :]


MODES: dict[str, tuple[int, int, int, bytes]] = {
    "within": (0, 100, 5000, CONTENT),
    "beyond the end": (0, BIG - 10, 5010, CONTENT + bytes(5000)),
    "keeping the size": (FALLOC_FL_KEEP_SIZE, BIG, 1 << 20, CONTENT),
    "a hole": (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, BLOCK + 1, 3 * BLOCK, _zeroed(BLOCK + 1, 3 * BLOCK)),
    "zeros": (ZERO_RANGE, 5, 2 * BLOCK, _zeroed(5, 2 * BLOCK)),
    "zeros beyond the end": (ZERO_RANGE, BIG - 6, 100, _zeroed(BIG - 6, 6) + bytes(94)),
    "zeros keeping the size": (ZERO_RANGE | FALLOC_FL_KEEP_SIZE, BIG - 6, 100, _zeroed(BIG - 6, 6)),
}


@pytest.mark.parametrize("mode", MODES)
def test_fallocate(system: System, path: Path, mode: str) -> None:
    flags, offset, length, expected = MODES[mode]
    with opened(path, os.O_RDWR) as fd:
        os.pread(fd, BIG, 0)  # so that the kernel has pages of it, which must not stay
        before = os.fstat(fd)
        if system.engine == "pyfuse3":
            with raises(errno.EOPNOTSUPP):
                syscalls.fallocate(fd, flags, offset, length)
            expected = CONTENT
        else:
            syscalls.fallocate(fd, flags, offset, length)
            after = os.fstat(fd)
            assert (after.st_blocks < before.st_blocks) == (mode == "a hole")
            assert after.st_ctime_ns > before.st_ctime_ns
        assert os.pread(fd, 2 * BIG, 0) == expected
    check(system, path, expected)


@pytest.mark.parametrize("mode", [COLLAPSE_RANGE, INSERT_RANGE])
def test_fallocate_that_moves_data(system: System, path: Path, mode: int) -> None:
    """Only some file systems on disks have it (fallocate(2)), and no FUSE: fuse_file_fallocate() in fs/fuse/file.c."""
    expected = CONTENT
    with opened(path, os.O_RDWR) as fd:
        if _refused(lambda: syscalls.fallocate(fd, mode, BLOCK, BLOCK)):
            assert path.stat().st_size == BIG
        else:
            assert system.mounted is None
            gap = b"" if mode == COLLAPSE_RANGE else bytes(BLOCK)
            expected = CONTENT[:BLOCK] + gap + CONTENT[2 * BLOCK if not gap else BLOCK :]
    check(system, path, expected)


WRONG = [
    (os.O_RDWR, 0, 0, 0, errno.EINVAL),
    (os.O_RDWR, 0, 0, -1, errno.EINVAL),
    (os.O_RDWR, 0, -1, 5, errno.EINVAL),
    (os.O_RDWR, 0, (1 << 63) - 5, 10, errno.EFBIG),
    (os.O_RDWR, FALLOC_FL_PUNCH_HOLE, 0, 5, errno.EOPNOTSUPP),
    (os.O_RDONLY, 0, 0, 5, errno.EBADF),
]


@pytest.mark.parametrize(("flags", "mode", "offset", "length", "code"), WRONG)
def test_fallocate_refuses(
    system: System, path: Path, flags: int, mode: int, offset: int, length: int, code: int
) -> None:
    with opened(path, flags) as fd, raises(code):
        syscalls.fallocate(fd, mode, offset, length)
    check(system, path, CONTENT)


def test_posix_fallocate_on_every_engine(system: System, path: Path) -> None:
    """glibc writes a byte to each block where fallocate(2) is not there."""
    with opened(path, os.O_RDWR) as fd:
        os.posix_fallocate(fd, BIG, 10_000)
    check(system, path, CONTENT + bytes(10_000))


# Holes.


def _map(fd: int, size: int) -> list[tuple[int, int]]:
    """The ranges of data, [start, stop), as SEEK_DATA and SEEK_HOLE tell."""
    found, position = [], 0
    while position < size:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break
        position = os.lseek(fd, start, os.SEEK_HOLE)
        found.append((start, position))
    return found


def test_seek_data_and_hole(system: System, root: Path) -> None:
    with opened(root / "new", os.O_RDWR | os.O_CREAT) as fd:
        os.pwrite(fd, b"x" * BLOCK, 1 << 20)
        os.ftruncate(fd, 3 << 20)
        os.fsync(fd)
        whole = [(0, 3 << 20)]  # always allowed (lseek(2)), and what there is where a file system cannot tell
        assert _map(fd, 3 << 20) == (whole if system.engine == "pyfuse3" else [(1 << 20, (1 << 20) + BLOCK)])
        for whence in (os.SEEK_DATA, os.SEEK_HOLE):
            with raises(errno.ENXIO):
                os.lseek(fd, 3 << 20, whence)


def test_seek_on_a_file_without_holes(path: Path) -> None:
    with opened(path) as fd:
        os.lseek(fd, 7, os.SEEK_SET)
        assert os.lseek(fd, 5, os.SEEK_DATA) == 5
        assert os.lseek(fd, 0, os.SEEK_CUR) == 5
        assert os.lseek(fd, 5, os.SEEK_HOLE) == BIG
        with raises(errno.EINVAL):
            os.lseek(fd, -1, os.SEEK_SET)
        for whence in (os.SEEK_DATA, os.SEEK_HOLE):
            with raises(errno.ENXIO):
                os.lseek(fd, BIG, whence)


@pytest.mark.parametrize("name", ["d/f", "void", "a", "new", "empty-new"])
def test_seek_to_where_nothing_is(root: Path, name: str) -> None:
    path = root / name
    if name == "new":
        path.write_text("content")
    with opened(path, os.O_RDONLY | os.O_CREAT) as fd:
        size = os.fstat(fd).st_size
        for offset in (-1, -BLOCK, -(1 << 63), size, size + 1, 1 << 40, (1 << 63) - 1):
            for whence in (os.SEEK_DATA, os.SEEK_HOLE):
                with raises(errno.ENXIO):
                    os.lseek(fd, offset, whence)
        assert os.lseek(fd, 0, os.SEEK_CUR) == 0


# Copies.


@pytest.mark.parametrize(("source", "target"), [(0, 0), (1, 0), (5000, 123), (BIG - 10, 40)])
def test_copy_file_range(system: System, path: Path, source: int, target: int) -> None:
    other = path.with_name("copy")
    other.write_bytes(b"-" * 50)
    expected = bytearray(b"-" * 50)
    with opened(path) as first, opened(other, os.O_RDWR) as second:
        wanted, copied = min(20_000, BIG - source), 0
        while moved := os.copy_file_range(first, second, 20_000, source + copied, target + copied):
            copied += moved
            if copied >= wanted:
                break
        assert copied >= wanted
        data = CONTENT[source : source + copied]
        expected.extend(bytes(max(0, target - len(expected))))
        expected[target : target + copied] = data
        assert os.pread(second, BIG, 0) == expected
        assert os.copy_file_range(first, second, 10, BIG, 0) == 0
    check(system, other, bytes(expected))


def test_copy_file_range_into_a_lower_file(system: System, root: Path) -> None:
    """Both of the tree; the target is copied up, with all its names."""
    with opened(root / "big") as source, opened(root / "b", os.O_RDWR) as target:
        assert os.copy_file_range(source, target, 4, 2, 2) == 4
        assert os.pread(target, 100, 0) == b"a 2345 of three names"
    check(system, root / "d/h", b"a 2345 of three names")


def test_copy_file_range_moves_the_positions(path: Path, root: Path) -> None:
    with opened(path) as source, opened(root / "copy", os.O_RDWR | os.O_CREAT) as target:
        assert os.copy_file_range(source, target, 1000) == 1000
        assert os.lseek(source, 0, os.SEEK_CUR) == os.lseek(target, 0, os.SEEK_CUR) == 1000


def test_copy_file_range_sees_what_was_just_written(system: System, path: Path) -> None:
    """Also what a mapping has written, which the server has not got yet."""
    with opened(path, os.O_RDWR) as fd, opened(path.with_name("copy"), os.O_RDWR | os.O_CREAT) as target:
        with mmap.mmap(fd, BIG) as view:
            view[10:14] = b"MAPS"
            os.pwrite(fd, b"CALL", 14)
            assert os.copy_file_range(fd, target, 20, 0, 0) == 20
        assert os.pread(target, 20, 0) == CONTENT[:10] + b"MAPSCALL" + CONTENT[18:20]


def test_copy_file_range_refuses(system: System, path: Path) -> None:
    with opened(path, os.O_RDWR) as fd, opened(path) as reading, opened(path.parent) as directory:
        with raises(errno.EINVAL):
            os.copy_file_range(fd, fd, 100, 0, 50)
        with raises(errno.EBADF):
            os.copy_file_range(fd, reading, 10, 0, 500)
        with raises(errno.EISDIR):
            os.copy_file_range(directory, fd, 10, 0, 0)
        with opened(path, os.O_WRONLY | os.O_APPEND) as appending, raises(errno.EBADF):
            os.copy_file_range(fd, appending, 10, 0, 500)
    check(system, path, CONTENT)


def test_cloning_shares_or_refuses(system: System, path: Path) -> None:
    with opened(path) as source, opened(path.with_name("copy"), os.O_RDWR | os.O_CREAT) as target:
        if _refused(lambda: fcntl.ioctl(target, syscalls.FICLONE, source)):
            assert os.fstat(target).st_size == 0
        else:
            assert system.mounted is None  # FUSE has no such message
            assert os.pread(target, BIG, 0) == CONTENT


@pytest.mark.parametrize("out", [False, True])
def test_sendfile_to_and_from_elsewhere(path: Path, tmp_path: Path, out: bool) -> None:
    (tmp_path / "elsewhere").write_bytes(CONTENT)
    source, target = path, tmp_path / "elsewhere"
    if not out:
        source, target = target, source
        target.write_bytes(b"")
    with opened(source) as reading, opened(target, os.O_RDWR | os.O_TRUNC) as writing:
        position = 0
        while position < BIG:
            position += os.sendfile(writing, reading, position, BIG)
    assert target.read_bytes() == CONTENT


def test_splice_through_a_pipe(path: Path, root: Path) -> None:
    reading, writing = os.pipe()
    try:
        with opened(path) as source, opened(root / "b", os.O_RDWR) as target:
            assert os.splice(source, writing, 4000, offset_src=3) == 4000
            assert os.splice(reading, target, 4000, offset_dst=1) == 4000
            assert os.pread(target, 5000, 0) == b"a" + CONTENT[3:4003]
    finally:
        os.close(reading)
        os.close(writing)
    assert (root / "a").read_bytes() == b"a" + CONTENT[3:4003]


def test_vectors(system: System, path: Path) -> None:
    first, second = bytearray(5), bytearray(BLOCK)
    with opened(path, os.O_RDWR) as fd:
        assert os.preadv(fd, [first, second], 3) == 5 + BLOCK
        assert bytes(first + second) == CONTENT[3 : 8 + BLOCK]
        assert os.preadv(fd, [first], BIG) == 0
        assert os.pwritev(fd, [b"one", b"", b"three"], BIG - 4) == 8
        assert os.pwritev(fd, [b"sync"], 0, os.RWF_DSYNC) == 4
    check(system, path, b"sync" + CONTENT[4 : BIG - 4] + b"onethree")


# Direct, and down to the disk.


def test_direct_io(system: System, path: Path) -> None:
    with opened(path, os.O_RDWR) as cached, opened(path, os.O_RDWR | os.O_DIRECT) as direct:
        os.pread(cached, BIG, 0)
        with mmap.mmap(-1, 4 * BLOCK) as buffer:  # aligned, as open(2) asks for
            assert os.preadv(direct, [buffer], BLOCK) == 4 * BLOCK
            assert buffer[:] == CONTENT[BLOCK : 5 * BLOCK]
            buffer[:] = b"d" * len(buffer)
            assert os.pwritev(direct, [buffer], 2 * BLOCK) == 4 * BLOCK
            assert os.pread(cached, 5, 2 * BLOCK) == b"ddddd"
            os.pwrite(cached, b"cached", BLOCK)
            assert os.preadv(direct, [buffer], BLOCK) == 4 * BLOCK
            assert buffer[:6] == b"cached"
    expected = bytearray(CONTENT)
    expected[BLOCK : BLOCK + 6] = b"cached"
    expected[2 * BLOCK : 6 * BLOCK] = b"d" * 4 * BLOCK
    check(system, path, bytes(expected))


@pytest.mark.parametrize("call", [os.fsync, os.fdatasync, syscalls.syncfs])
@pytest.mark.parametrize("name", ["big", "new", "d", "made", "."])
def test_syncing(root: Path, name: str, call: Callable[[int], None]) -> None:
    (root / "made").mkdir()
    (root / "new").write_text("new")
    with opened(root / name) as fd:
        call(fd)
    if (root / name).is_file():
        with opened(root / name, os.O_RDWR | os.O_SYNC) as fd:
            os.pwrite(fd, b"x", 0)
            call(fd)
            assert os.pread(fd, 1, 0) == b"x"


def test_syncing_what_is_unlinked(path: Path) -> None:
    with opened(path, os.O_RDWR) as fd:
        path.unlink()
        os.pwrite(fd, b"x", 0)
        os.fsync(fd)
        assert os.pread(fd, 3, 0) == b"x12"


def test_statfs(system: System, root: Path) -> None:
    info = os.statvfs(root / "d/f")
    assert info.f_namemax == 255
    assert info.f_blocks >= info.f_bfree >= info.f_bavail > 0
    assert info.f_files >= info.f_ffree > 0
    assert info.f_frsize > 0
    with opened(root / "d/f") as fd:
        again = os.fstatvfs(fd)
    assert (again.f_blocks, again.f_files, again.f_bsize) == (info.f_blocks, info.f_files, info.f_bsize)


ADVICE = [
    os.POSIX_FADV_NORMAL, os.POSIX_FADV_SEQUENTIAL, os.POSIX_FADV_RANDOM, os.POSIX_FADV_NOREUSE,
    os.POSIX_FADV_WILLNEED, os.POSIX_FADV_DONTNEED,
]  # fmt: skip


def test_advice(path: Path) -> None:
    with opened(path) as fd:
        for advice in ADVICE:
            os.posix_fadvise(fd, 0, 0, advice)
            assert os.pread(fd, 100, 5000) == CONTENT[5000:5100]
        with raises(errno.EINVAL):
            os.posix_fadvise(fd, 0, 0, 99)
