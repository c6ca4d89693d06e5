"""Sizes: truncate, the limits of a process and of a file system, files beyond 4 GiB."""

from __future__ import annotations

import errno
import mmap
import os
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conformance.big import CONTENT, check
from tests.support.child import in_child
from tests.support.content import BIG, LOWERS
from tests.support.mounted import Mounted
from tests.support.systems import System, opened, raises
from unionfs.image.compiler import compile_image
from unionfs.image.tree import CompiledImage
from unionfs.live.directories import DirectoryStack
from unionfs.serve import ENGINES
from unionfs.tree import Tree

BLOCK = 4096


@pytest.mark.parametrize("size", [0, 1, BLOCK, BIG - 1, BIG, BIG + 1, 5 << 20])
@pytest.mark.parametrize("by", ["path", "descriptor"])
def test_truncate(system: System, path: Path, size: int, by: str) -> None:
    expected = CONTENT[:size] + bytes(max(0, size - BIG))
    if by == "path":
        os.truncate(path, size)
        check(system, path, expected)
        return
    with opened(path, os.O_RDWR) as fd, opened(path) as other:
        os.pread(fd, BIG, 0)
        os.ftruncate(fd, size)
        assert os.fstat(other).st_size == size
        assert os.pread(other, 6 << 20, 0) == expected
    check(system, path, expected)


def test_what_was_cut_does_not_come_back(path: Path) -> None:
    with opened(path, os.O_RDWR) as fd:
        os.pread(fd, BIG, 0)
        os.ftruncate(fd, 10)
        os.ftruncate(fd, 100)
        assert os.pread(fd, 200, 0) == CONTENT[:10] + bytes(90)
        os.pwrite(fd, b"x", 300)
        assert os.pread(fd, 400, 0) == CONTENT[:10] + bytes(290) + b"x"


def test_truncate_refuses(root: Path) -> None:
    with raises(errno.EISDIR):
        os.truncate(root / "d", 0)
    with raises(errno.EINVAL):
        os.truncate(root / "big", -1)
    with raises(errno.EFBIG):
        os.truncate(root / "big", 1 << 62)
    with opened(root / "big") as fd, raises(errno.EINVAL):
        os.ftruncate(fd, 5)
    assert (root / "big").read_bytes() == CONTENT


def _beyond(path: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (BIG + 10, BIG + 10))  # Python ignores SIGXFSZ
    calls: list[Callable[[int], object]] = [
        lambda fd: os.pwrite(fd, b"x", BIG + 10),
        lambda fd: os.ftruncate(fd, BIG + 11),
    ]
    with opened(path, os.O_RDWR) as fd:
        for call in calls:
            with raises(errno.EFBIG):
                call(fd)
        assert os.pwrite(fd, b"x" * 20, BIG) == 10


def test_the_limit_of_a_process(system: System, path: Path) -> None:
    in_child(lambda: _beyond(path))
    check(system, path, CONTENT + b"x" * 10)


def test_beyond_4_gib(system: System, path: Path) -> None:
    with opened(path, os.O_RDWR) as fd:
        for place in ((1 << 32) - 2, (5 << 30) + 1):
            assert os.pwrite(fd, b"far off", place) == 7
        assert os.pread(fd, 10, (1 << 32) - 3) == b"\0far off\0\0"
        os.fsync(fd)
    system.remount()
    info = path.stat()
    assert info.st_size == (5 << 30) + 8
    assert info.st_blocks * 512 < 10 << 20
    with opened(path) as fd:
        assert os.pread(fd, 10, (1 << 32) - 3) == b"\0far off\0\0"
        assert os.pread(fd, 100, (5 << 30) + 1) == b"far off"
        with mmap.mmap(fd, 8, prot=mmap.PROT_READ, offset=5 << 30) as view:
            assert view[:] == b"\0far off"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", LOWERS)
def test_a_lower_file_beyond_4_gib(tmp_path: Path, kind: str, engine: str) -> None:
    """Nearly all of it holes, which stay holes when it is copied up."""
    layer, far = tmp_path / "layer", (5 << 30) + 1
    layer.mkdir()
    with opened(layer / "far", os.O_RDWR | os.O_CREAT) as fd:
        os.pwrite(fd, b"first", 0)
        os.pwrite(fd, b"last", far)

    def tree() -> Tree:
        if kind == "directories":
            return DirectoryStack([os.fsencode(layer)])
        return CompiledImage(tmp_path / "index", [tmp_path / "layer.tar"])

    if kind == "image":
        subprocess.run(["tar", "--sparse", "-cf", tmp_path / "layer.tar", "-C", layer, "far"], check=True)
        compile_image([tmp_path / "layer.tar"], tmp_path / "index")
    mounted = Mounted(tmp_path, tree, engine)
    mounted.mount()
    try:
        with opened(mounted.target / "far", os.O_RDWR) as fd:
            assert os.pread(fd, 10, far) == b"last"
            assert os.pread(fd, 10, 1 << 32) == bytes(10)
            os.pwrite(fd, b"middle", 1 << 32)
            assert os.pread(fd, 10, far) == b"last"
            assert os.pread(fd, 10, 0) == b"first" + bytes(5)
            assert os.pread(fd, 8, (1 << 32) - 1) == b"\0middle\0"
    finally:
        mounted.unmount()
    info = (mounted.upper / "far").stat()
    assert info.st_size == far + 4
    assert info.st_blocks * 512 < 1 << 20
