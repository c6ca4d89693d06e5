"""Answers that go from the file to the device by splice(2), with a socket in the device's place."""

from __future__ import annotations

import fcntl
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.child import in_child
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


def test_a_file_that_is_cut_meanwhile_leaves_nothing_behind(device: tuple[int, socket.socket], file: int) -> None:
    splicer = Splicer(device[0])
    os.ftruncate(file, SIZE + 100)
    assert not splicer.send(6, Run(file, SIZE, SIZE))
    run = Run(file, 0, SIZE)
    assert splicer.send(7, run)
    expected = _answer(file, run)
    assert _received(device[1], len(expected)) == expected, "the data of the failed answer came first"
    splicer.close()


def test_what_cannot_be_spliced_is_left_to_the_caller_for_good(
    device: tuple[int, socket.socket], file: int, tmp_path: Path
) -> None:
    splicer = Splicer(device[0])
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        assert not splicer.send(7, Run(directory, 0, SIZE))
    finally:
        os.close(directory)
    assert not splicer.takes(Run(file, 0, SIZE), SIZE)
    splicer.close()


def test_an_answer_that_the_device_does_not_take_is_left_to_the_caller(file: int, tmp_path: Path) -> None:
    closed = os.open(tmp_path, os.O_RDONLY)  # a directory in the device's place: EBADF, nothing that ends the mount
    try:
        splicer = Splicer(closed)
        assert not splicer.send(7, Run(file, 0, SIZE))
        splicer.close()
    finally:
        os.close(closed)


def _is_left_to_the_caller_for_good(file: int) -> None:
    splicer = Splicer(file)
    assert splicer.takes(Run(file, 0, SIZE), SIZE)
    assert not splicer.send(7, Run(file, 0, SIZE))
    assert not splicer.takes(Run(file, 0, SIZE), SIZE)


def test_without_a_descriptor_for_a_pipe_it_is_left_to_the_caller_for_good(file: int) -> None:
    def send() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
        _is_left_to_the_caller_for_good(file)

    in_child(send)


@pytest.mark.only_root
def test_where_this_user_has_too_many_pipes_it_is_left_to_the_caller_for_good(file: int) -> None:
    def send() -> None:
        os.setgroups([])
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        _use_up_pipes()
        _is_left_to_the_caller_for_good(file)

    in_child(send)


_NOBODY = 54321
"""A user id that nothing else runs with: pipes count by user."""


def _use_up_pipes() -> None:
    """Let this user have no larger pipe than it gets by itself (/proc/sys/fs/pipe-user-pages-soft)."""
    while True:
        try:
            fcntl.fcntl(os.pipe()[1], fcntl.F_SETPIPE_SZ, 1 << 20)
        except PermissionError:
            return
