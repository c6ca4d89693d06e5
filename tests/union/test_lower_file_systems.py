"""Lower directories on, or with mounts of, file systems that are no disks."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.foreign import foreign
from tests.support.mounted import Mounted
from tests.support.systems import opened
from tests.support.waiting import wait_until
from unionfs import syscalls
from unionfs.live.directories import DirectoryStack
from unionfs.serve import ENGINES

pytestmark = [pytest.mark.only_root, pytest.mark.parametrize("engine", ENGINES)]

_MS_REMOUNT = 32


@contextmanager
def over(tmp_path: Path, lower: Path, engine: str, timeout: float | None = None) -> Iterator[Path]:
    """The target of a mount over a directory."""
    options = {} if timeout is None else {"timeout": timeout}
    mounted = Mounted(tmp_path, lambda: DirectoryStack([os.fsencode(lower)], **options), engine)
    mounted.mount()
    try:
        yield mounted.target
    finally:
        mounted.unmount()


@contextmanager
def mounted_at(target: Path, fstype: str, source: Path | None = None) -> Iterator[None]:
    target.mkdir(exist_ok=True)
    flags = 0 if source is None else syscalls.MS_BIND
    syscalls.mount(os.fsencode(source or fstype), os.fsencode(target), fstype.encode(), flags, b"")
    try:
        yield
    finally:
        with_it = os.path.ismount(target)
        if with_it:
            syscalls.umount2(os.fsencode(target))


@pytest.fixture
def pseudo(tmp_path: Path) -> Iterator[Path]:
    lower = tmp_path / "lower"
    lower.mkdir()
    with mounted_at(lower / "proc", "proc"), mounted_at(lower / "sys", "sysfs"):
        yield lower


def test_files_whose_size_says_nothing_are_read_as_on_the_host(tmp_path: Path, pseudo: Path, engine: str) -> None:
    with over(tmp_path, pseudo, engine) as target:
        for name in ("proc/version", "proc/filesystems", "proc/kallsyms", "sys/kernel/mm/transparent_hugepage/enabled"):
            assert (target / name).stat().st_size == (pseudo / name).stat().st_size
            assert subprocess.run(["cmp", target / name, pseudo / name], check=False).returncode == 0
        shown = subprocess.run(["grep", "-c", ".", target / "proc/version"], capture_output=True, check=True)
        assert shown.stdout == b"1\n"
        subprocess.run(["cp", target / "proc/version", tmp_path / "copy"], check=True)
        assert (tmp_path / "copy").read_text() == (pseudo / "proc/version").read_text()


def test_what_such_a_file_says_is_new_each_time(tmp_path: Path, pseudo: Path, engine: str) -> None:
    with over(tmp_path, pseudo, engine) as target, opened(target / "proc/uptime") as fd:
        first = os.pread(fd, 100, 0)
        wait_until(lambda: os.pread(fd, 100, 0) != first, "another time")
        wait_until(lambda: (target / "proc/uptime").read_bytes() != first, "another time")


def test_such_a_file_is_copied_up_with_what_it_says(tmp_path: Path, pseudo: Path, engine: str) -> None:
    text = (pseudo / "proc/version").read_text()
    with over(tmp_path, pseudo, engine) as target:
        (target / "proc/version").chmod(0o640)
        assert (target / "proc/version").read_text() == text
        if engine == "direct":  # the writeback of pyfuse3 believes no size but its own
            with open(target / "proc/filesystems", "a") as file:
                file.write("more\n")
            assert (target / "proc/filesystems").read_text() == (pseudo / "proc/filesystems").read_text() + "more\n"
    assert (tmp_path / "upper/proc/version").read_text() == text


def _bind(base: Path) -> tuple[str, Path | None]:
    (base / "source/in").mkdir(parents=True)
    return "none", base / "source"


def _tmpfs(base: Path) -> tuple[str, Path | None]:
    return "tmpfs", None


@pytest.mark.parametrize("kind", [_tmpfs, _bind])
def test_the_host_unmounts_what_nobody_uses(
    tmp_path: Path, engine: str, kind: Callable[[Path], tuple[str, Path | None]]
) -> None:
    lower = tmp_path / "lower"
    lower.mkdir()
    with mounted_at(lower / "below", *kind(tmp_path)):
        deep = lower / "below/in/deep"
        deep.mkdir(parents=True)
        (deep / "file").write_text("content")
        with over(tmp_path, lower, engine) as target:
            found = {path.name for path in target.rglob("*")}
            assert found == {"below", "in", "deep", "file"}
            assert (target / "below/in/deep/file").read_text() == "content"
            wait_until(lambda: _unmounts(lower / "below"), "the host to be able to unmount")
            with opened(target) as fd:
                assert os.listdir(fd) == ["below"]


def _unmounts(target: Path) -> bool:
    return subprocess.run(["umount", target], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("timeout", [None, 0.0])
def test_a_lower_that_gives_a_file_another_number(tmp_path: Path, engine: str, timeout: float | None) -> None:
    """sshfs does, for what the kernel has forgotten of it."""
    with foreign("sshfs", tmp_path / "foreign") as lower:
        for name in ("read", "write", "stat", "mapped"):
            (lower / name).write_text("content")
        (lower / "link").symlink_to("read")

        def forget() -> None:
            before = (lower / "stat").stat().st_ino
            # Remounting shrinks the dentry cache, which is not for what is open.
            syscalls.mount(b"x", os.fsencode(lower), b"fuse.sshfs", _MS_REMOUNT, b"")
            for count in range(9):  # others get the numbers that come next
                (lower / f"other{count}").touch()
            assert (lower / "stat").stat().st_ino != before

        with (
            over(tmp_path, lower, engine, timeout) as target,
            opened(target / "read") as reading,
            opened(target / "write", os.O_RDWR) as writing,
            opened(target / "link", os.O_PATH | os.O_NOFOLLOW) as link,
        ):
            forget()
            assert os.fstat(reading).st_size == 7
            assert os.pread(reading, 100, 0) == b"content"
            forget()
            os.pwrite(writing, b"CHANGED", 0)
            assert os.pread(writing, 100, 0) == b"CHANGED"
            assert os.readlink(b"", dir_fd=link) == "read" or os.readlink(b"", dir_fd=link) == b"read"
            forget()
            assert (target / "stat").read_text() == "content"
            assert {
                path.name: path.read_text() for path in target.glob("[a-z]*") if path.name in ("read", "write")
            } == {
                "read": "content",
                "write": "CHANGED",
            }
