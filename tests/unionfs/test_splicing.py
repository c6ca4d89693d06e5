"""Answers that go from the file to the device by splice(2), with a socket in the device's place."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from unionfs.fuse import wire
from unionfs.fuse.splicing import Splicer
from unionfs.tree import Run

SIZE = 64 << 10


@pytest.fixture
def device() -> Iterator[tuple[int, socket.socket]]:
    """A descriptor to answer on, and where the answers arrive."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        theirs.settimeout(20)
        yield ours.fileno(), theirs


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(3 * SIZE))
    fd = os.open(path, os.O_RDWR)
    yield fd
    os.close(fd)


def _received(answers: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        data += answers.recv(length - len(data))
    return data


def _answer(fd: int, run: Run) -> bytes:
    return wire.OUT_HEADER.pack(wire.OUT_HEADER.size + run.length, 0, 7) + os.pread(fd, run.length, run.offset)


@pytest.mark.parametrize("offset", [0, 512, 4095])
def test_an_answer_is_the_header_and_the_data(device: tuple[int, socket.socket], file: int, offset: int) -> None:
    splicer = Splicer(device[0])
    run = Run(file, offset, SIZE)
    assert splicer.takes(run, SIZE)
    assert splicer.send(7, run)
    expected = _answer(file, run)
    assert _received(device[1], len(expected)) == expected
    splicer.close()


def test_only_what_is_there_as_a_whole_is_taken(device: tuple[int, socket.socket], file: int) -> None:
    splicer = Splicer(device[0])
    assert splicer.takes(Run(file, 2 * SIZE, SIZE), SIZE)
    assert not splicer.takes(Run(file, 2 * SIZE + 1, SIZE), SIZE), "the file ends before"
    assert not splicer.takes(Run(file, 0, SIZE), SIZE + 1), "another run follows"
    assert not splicer.takes(Run(-1, 0, SIZE), SIZE), "a hole"
    assert not splicer.takes(Run(file, 0, 8 << 20), 8 << 20), "more than fits into the pipe"
    splicer.close()
    assert not splicer.takes(Run(file, 0, SIZE), SIZE), "no pipe any more"


def test_a_file_that_is_cut_meanwhile_leaves_nothing_behind(device: tuple[int, socket.socket], file: int) -> None:
    splicer = Splicer(device[0])
    os.ftruncate(file, SIZE + 100)
    assert not splicer.send(6, Run(file, SIZE, SIZE))
    run = Run(file, 0, SIZE)
    assert splicer.send(7, run)
    expected = _answer(file, run)
    assert _received(device[1], len(expected)) == expected, "the data of the failed answer came first"
    splicer.close()


def test_what_cannot_be_spliced_is_left_to_the_caller(device: tuple[int, socket.socket], tmp_path: Path) -> None:
    splicer = Splicer(device[0])
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        assert not splicer.send(7, Run(directory, 0, SIZE))
    finally:
        os.close(directory)
        splicer.close()


def test_where_no_pipe_can_be_had_nothing_is_taken(file: int) -> None:
    child = os.fork()
    if not child:
        import resource

        resource.setrlimit(resource.RLIMIT_NOFILE, (file + 1, file + 1))
        taken = Splicer(file).takes(Run(file, 0, SIZE), SIZE)
        os._exit(1 if taken else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
