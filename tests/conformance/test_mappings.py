"""One file is one file: what was opened or mapped before a copy-up, a removal or a rename sees what comes after."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conformance.big import CONTENT
from tests.support.child import Child, in_child
from tests.support.content import BIG
from tests.support.systems import System, opened

PAGE = mmap.PAGESIZE


@contextmanager
def _mapped(path: Path, flags: int = mmap.MAP_SHARED, protection: int = mmap.PROT_READ) -> Iterator[mmap.mmap]:
    writes = protection & mmap.PROT_WRITE and flags & mmap.MAP_SHARED
    with (
        opened(path, os.O_RDWR if writes else os.O_RDONLY) as fd,
        mmap.mmap(fd, path.stat().st_size, flags, protection) as view,
    ):
        yield view


def _pwrite(path: Path, data: bytes, offset: int) -> None:
    with opened(path, os.O_RDWR) as fd:
        assert os.pwrite(fd, data, offset) == len(data)


CHANGES: dict[str, tuple[Callable[[Path], object], bytes]] = {
    "write": (lambda path: _pwrite(path, b"WRITTEN", 3), CONTENT[:3] + b"WRITTEN" + CONTENT[10:]),
    "append": (lambda path: _append(path, b"more"), CONTENT + b"more"),
    "truncate": (lambda path: os.truncate(path, 10), CONTENT[:10]),
    "replace": (lambda path: path.write_bytes(b"all new"), b"all new"),
    "mapping": (lambda path: _map(path, b"MAPPED", PAGE), CONTENT[:PAGE] + b"MAPPED" + CONTENT[PAGE + 6 :]),
    "chmod": (lambda path: path.chmod(0o600), CONTENT),
    "unlink": (lambda path: path.unlink(), CONTENT),
    "rename": (lambda path: path.rename(path.with_name("moved")), CONTENT),
    "rename over": (lambda path: path.with_name("void").rename(path), CONTENT),
    "write and unlink": (lambda path: (_pwrite(path, b"W", 0), path.unlink()), b"W" + CONTENT[1:]),
}


def _append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def _map(path: Path, data: bytes, offset: int) -> None:
    with _mapped(path, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE) as view:
        view[offset : offset + len(data)] = data


@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_a_descriptor_sees_what_another_process_does(path: Path, change: str, read: bool) -> None:
    act, expected = CHANGES[change]
    with opened(path) as fd:
        before = os.fstat(fd)
        if read:
            assert os.pread(fd, BIG, 0) == CONTENT
        in_child(lambda: act(path))
        assert os.pread(fd, 2 * BIG, 0) == expected
        after = os.fstat(fd)
        assert (after.st_size, after.st_ino) == (len(expected), before.st_ino)
        assert after.st_nlink == (0 if change in ("unlink", "rename over", "write and unlink") else 1)
        assert after.st_mode & 0o777 == (0o600 if change == "chmod" else before.st_mode & 0o777)


@pytest.mark.parametrize("flags", [mmap.MAP_SHARED, mmap.MAP_PRIVATE])
def test_a_mapping_sees_what_another_process_writes(path: Path, flags: int) -> None:
    """MAP_PRIVATE too, of pages not written through it: mmap(2) leaves that open, Linux file systems agree on it."""
    with _mapped(path, flags) as view:
        assert view[:] == CONTENT
        in_child(lambda: _pwrite(path, b"WRITTEN", PAGE))
        assert view[PAGE : PAGE + 9] == b"WRITTEN78"
        in_child(lambda: _map(path, b"MAPPED", 5 * PAGE))
        assert view[5 * PAGE : 5 * PAGE + 6] == b"MAPPED"


def test_two_mappings_and_calls_agree(system: System, path: Path) -> None:
    both = mmap.PROT_READ | mmap.PROT_WRITE
    with opened(path, os.O_RDWR) as fd, _mapped(path, mmap.MAP_SHARED, both) as view, _mapped(path) as other:
        in_child(lambda: view.__setitem__(slice(0, 4), b"ONE!"))
        assert other[:4] == os.pread(fd, 4, 0) == b"ONE!"
        os.pwrite(fd, b"two?", 2)
        assert other[:6] == view[:6] == b"ONtwo?"
        view.flush()
    system.remount()
    assert path.read_bytes() == b"ONtwo?" + CONTENT[6:]


def test_a_private_mapping_keeps_its_changes(path: Path) -> None:
    both = mmap.PROT_READ | mmap.PROT_WRITE
    with _mapped(path, mmap.MAP_PRIVATE, both) as view:
        view[:4] = b"mine"
        _pwrite(path, b"theirs", 0)
        assert view[:8] == b"mine4567"
        assert path.read_bytes() == b"theirs" + CONTENT[6:]


def test_a_mapping_over_truncation(path: Path) -> None:
    """What is behind the end of the last page is zeros, and what comes back by growing is, too."""
    with _mapped(path) as view:
        assert view[:20] == CONTENT[:20]
        os.truncate(path, 10)
        assert view[:20] == CONTENT[:10] + bytes(10)
        os.truncate(path, BIG)
        assert view[:] == CONTENT[:10] + bytes(BIG - 10)


def test_a_mapping_outlives_the_name(system: System, path: Path) -> None:
    both = mmap.PROT_READ | mmap.PROT_WRITE
    with _mapped(path, mmap.MAP_SHARED, both) as view, opened(path) as fd:
        path.unlink()
        view[:4] = b"gone"
        view.flush()
        assert os.pread(fd, 5, 0) == b"gone4"
        assert view[BIG - 4 :] == b"cdef"
        path.write_bytes(b"another file")
        assert os.pread(fd, 5, 0) == b"gone4"
    system.remount()
    assert path.read_bytes() == b"another file"


def test_unlinked_files_are_changed_like_others(root: Path, path: Path) -> None:
    with opened(path, os.O_RDWR) as fd, opened(path) as reading:
        path.unlink()
        os.fchmod(fd, 0o640)
        os.utime(fd, ns=(5, 7))
        os.setxattr(fd, "user.n", b"x")
        info = os.fstat(reading)
        assert (info.st_mode & 0o777, info.st_mtime_ns, info.st_nlink) == (0o640, 7, 0)
        assert os.getxattr(reading, "user.n") == b"x"
        os.ftruncate(fd, 3)
        os.pwrite(fd, b"end", 5)
        assert os.pread(reading, 20, 0) == b"012\0\0end"


def test_an_open_file_moves_with_its_directory(system: System, root: Path) -> None:
    with opened(root / "d/e/f", os.O_RDWR) as fd, opened(root / "d") as directory:
        (root / "d").rename(root / "empty/n")
        os.pwrite(fd, b"CONTENT", 0)
        assert (root / "empty/n/e/f").read_text() == "CONTENT of d/e/f"
        (root / "empty/n/e/f").rename(root / "f")
        os.pwrite(fd, b"again  ", 0)
        assert sorted(os.listdir(directory)) == ["e", "f", "g", "h", "l"]
    system.remount()
    assert (root / "f").read_text() == "again   of d/e/f"


def test_one_file_by_all_its_names(root: Path) -> None:
    with opened(root / "b") as before, _mapped(root / "d/h") as view:
        assert view[:6] == b"a file"
        in_child(lambda: _pwrite(root / "a", b"A", 0))
        with opened(root / "d/h") as after:
            assert os.pread(before, 6, 0) == os.pread(after, 6, 0) == view[:6] == b"A file"
            assert os.fstat(before).st_ino == os.fstat(after).st_ino


def test_appending_by_several_processes(system: System, root: Path) -> None:
    def append(letter: bytes) -> None:
        with opened(root / "d/f", os.O_WRONLY | os.O_APPEND) as fd:
            for _ in range(50):
                assert os.write(fd, letter * 10) == 10

    for child in [Child(lambda letter=letter: append(letter)) for letter in (b"1", b"2", b"3")]:
        child.wait()
    system.remount()
    data = (root / "d/f").read_bytes()
    assert len(data) == len("content of d/f") + 1500
    pieces = [data[start : start + 10] for start in range(len("content of d/f"), len(data), 10)]
    assert sorted(pieces) == sorted(letter * 10 for letter in (b"1", b"2", b"3") for _ in range(50))


def test_a_program_is_replaced_while_it_runs(system: System, root: Path) -> None:
    """As package managers do it: a new file is renamed over the running one, which goes on."""
    shutil.copy("/bin/cat", root / "program")
    shutil.copy("/bin/echo", root / "next")
    system.remount()
    with subprocess.Popen([root / "program"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdin
        assert running.stdout
        running.stdin.write(b"one\n")
        running.stdin.flush()
        assert running.stdout.readline() == b"one\n"
        (root / "next").rename(root / "program")
        running.stdin.write(b"two\n")
        running.stdin.flush()
        assert running.stdout.readline() == b"two\n"
        assert subprocess.run([root / "program", "new"], capture_output=True, check=True).stdout == b"new\n"
        running.stdin.close()
    assert running.returncode == 0


def test_a_script_runs(root: Path) -> None:
    (root / "script").write_text("#!/bin/sh\necho $1 from a script\n")
    (root / "script").chmod(0o755)
    done = subprocess.run([root / "script", "words"], capture_output=True, check=True)
    assert done.stdout == b"words from a script\n"
