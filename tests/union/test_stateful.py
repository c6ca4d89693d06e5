"""Random sequences of file operations on a mount and on a plain directory: same results, errno and final tree.

Every step is done on both sides, and then everything is compared. The bounded profile is what CI runs; set
UFS_STATEFUL_EXAMPLES for longer runs with fresh random sequences.
"""

from __future__ import annotations

import errno
import itertools
import mmap
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.support.compare import differences, everything, outcome, status
from tests.support.content import BIG, CONTENT, LOWERS, PAST, Lower, build_plain
from tests.support.mounted import Mounted
from unionfs import syscalls
from unionfs.serve import ENGINES

NEW = ["n", "o", "d/n", "d/e/n", "n/f", "n/n", "o/f", "m/n", "empty/f", "d/e/x/n", "n/n/f", "o/n"]
"""Names that are not there at the start."""

PATHS = st.sampled_from([item.path for item in CONTENT] + NEW)
MODES = st.sampled_from([0o600, 0o644, 0o755, 0o4755, 0o2755, 0o1777])
SIZES = st.sampled_from([0, 1, 5, 4096, 4097, 10_000, 70_000, BIG - 1])
DATA = st.sampled_from([b"", b"x", b"hello", b"0" * 4096, bytes(100), b"z" * 9000])
SLOTS = st.integers(0, 3)
XATTRS = st.sampled_from(["user.one", "user.two", "user.three", "user.four"])
ALLOCATIONS = st.sampled_from([0, 1, 3, 16, 17])
"""Modes of fallocate(2): none, KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE, ZERO_RANGE without a new size."""

EXAMPLES = int(os.environ.get("UFS_STATEFUL_EXAMPLES", "0"))


class Comparison(RuleBasedStateMachine):
    """One mount, one plain directory, and descriptors that are open on both."""

    lower: Lower
    engine: str
    base: Path
    pressed = False
    """Whether the kernel is made to forget all the time, as when memory is short."""
    numbers = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.place = self.base / f"{next(self.numbers)}"
        self.place.mkdir()
        self.mounted = Mounted(self.place, self.lower.open, self.engine)
        self.plain = self.place / "plain"
        self.merged = self.mounted.target
        self.open: dict[int, tuple[int, int]] = {}
        self.pressure = Thread(target=self._press)
        self.released, self.there = Event(), Lock()
        self.inodes: dict[int, int] = {}  # inode number in the plain directory -> on the mount

    @initialize()
    def begin(self) -> None:
        build_plain(self.plain)
        self.mounted.mount()
        if self.pressed:
            self.pressure.start()

    def _press(self) -> None:
        while not self.released.wait(0.02):
            with self.there:
                self.mounted.forget()

    def teardown(self) -> None:
        self._close_all()
        self.released.set()
        if self.pressure.is_alive():
            self.pressure.join()
        self.mounted.unmount()
        shutil.rmtree(self.place)

    def both(self, call: Callable[[Path], Any]) -> Any:
        """Do it on both sides and compare."""
        right, ours = outcome(lambda: call(self.plain)), outcome(lambda: call(self.merged))
        assert ours == right, f"gave {ours!r}, should give {right!r}"
        return right

    def on_slot(self, slot: int, call: Callable[[int], Any]) -> None:
        """The same with a descriptor that is open on both."""
        if slot in self.open:
            right, ours = self.open[slot]
            expected, found = outcome(lambda: call(right)), outcome(lambda: call(ours))
            assert found == expected, f"gave {found!r}, should give {expected!r}"

    @invariant()
    def same(self) -> None:
        if not self.plain.exists():
            return
        right, right_numbers = everything(self.plain)
        ours, our_numbers = everything(self.merged)
        assert differences(ours, right) == []
        pairs = {right_numbers[path]: our_numbers[path] for path in right}
        assert len(set(pairs.values())) == len(pairs), "two files show one inode number"
        for path, number in right_numbers.items():
            assert our_numbers[path] == pairs[number], f"{path}: names of one file show different inode numbers"
            before = self.inodes.get(number, our_numbers[path])
            assert before == our_numbers[path], f"{path}: the inode number changed"
        self.inodes = pairs

    # Names.

    @rule(path=PATHS, mode=MODES, data=DATA)
    def create(self, path: str, mode: int, data: bytes) -> None:
        def call(base: Path) -> None:
            fd = os.open(base / path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            try:
                assert os.write(fd, data) == len(data)
            finally:
                os.close(fd)

        self.both(call)

    @rule(path=PATHS, data=DATA, flags=st.sampled_from([0, os.O_APPEND, os.O_TRUNC, os.O_CREAT | os.O_TRUNC]))
    def write_by_name(self, path: str, data: bytes, flags: int) -> None:
        def call(base: Path) -> None:
            fd = os.open(base / path, os.O_WRONLY | os.O_NONBLOCK | flags)
            try:
                os.write(fd, data)
            finally:
                os.close(fd)

        self.both(call)

    @rule(path=PATHS, mode=MODES)
    def mkdir(self, path: str, mode: int) -> None:
        self.both(lambda base: os.mkdir(base / path, mode))

    @rule(path=PATHS, mode=MODES)
    def mkfifo(self, path: str, mode: int) -> None:
        self.both(lambda base: os.mkfifo(base / path, mode))

    @rule(path=PATHS, text=PATHS)
    def symlink(self, path: str, text: str) -> None:
        self.both(lambda base: os.symlink(text, base / path))

    @rule(old=PATHS, new=PATHS)
    def link(self, old: str, new: str) -> None:
        self.both(lambda base: os.link(base / old, base / new, follow_symlinks=False))

    @rule(path=PATHS)
    def unlink(self, path: str) -> None:
        self.both(lambda base: os.unlink(base / path))

    @rule(path=PATHS)
    def rmdir(self, path: str) -> None:
        self.both(lambda base: os.rmdir(base / path))

    @rule(path=PATHS)
    def remove_all(self, path: str) -> None:
        def call(base: Path) -> None:
            if not stat.S_ISDIR(os.lstat(base / path).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, "rmtree would open a fifo, and wait")
            shutil.rmtree(base / path)

        self.both(call)

    @rule(old=PATHS, new=PATHS, flags=st.sampled_from([0, 0, 0, syscalls.RENAME_NOREPLACE, syscalls.RENAME_EXCHANGE]))
    def rename(self, old: str, new: str, flags: int) -> None:
        def call(base: Path) -> None:
            here = syscalls.AT_FDCWD
            syscalls.renameat2(here, os.fsencode(base / old), here, os.fsencode(base / new), flags)

        self.both(call)

    # Attributes.

    @rule(path=PATHS, mode=MODES)
    def chmod(self, path: str, mode: int) -> None:
        self.both(lambda base: os.chmod(base / path, mode))

    @precondition(lambda self: os.geteuid() == 0)
    @rule(path=PATHS, uid=st.sampled_from([-1, 0, 1000]), gid=st.sampled_from([-1, 0, 2000]))
    def chown(self, path: str, uid: int, gid: int) -> None:
        # Changing nothing takes set-id bits as well, but fuse_setattr() of the kernel does not say so to us.
        if (uid, gid) != (-1, -1):
            self.both(lambda base: os.chown(base / path, uid, gid, follow_symlinks=False))

    @rule(path=PATHS, times=st.tuples(st.integers(-5, PAST), st.integers(-5, PAST)))
    def utimens(self, path: str, times: tuple[int, int]) -> None:
        self.both(lambda base: os.utime(base / path, times, follow_symlinks=False))

    @rule(path=PATHS, size=SIZES)
    def truncate(self, path: str, size: int) -> None:
        def call(base: Path) -> None:
            info = (base / path).stat()
            # To the size that there is: a local disk changes st_mtime. The kernel's fuse_do_setattr() with the
            # writeback cache, which owns that time, does not.
            if info.st_size != size and not stat.S_ISFIFO(info.st_mode):
                os.truncate(base / path, size)

        self.both(call)

    @rule(path=PATHS)
    def stat_by_name(self, path: str) -> None:
        self.both(lambda base: status(os.stat(base / path)))

    @rule(path=PATHS, name=XATTRS, value=DATA, flags=st.sampled_from([0, os.XATTR_CREATE, os.XATTR_REPLACE]))
    def setxattr(self, path: str, name: str, value: bytes, flags: int) -> None:
        if self.engine == "pyfuse3":
            flags = 0  # it does not pass them on
        self.both(lambda base: os.setxattr(base / path, name, value[:2000], flags, follow_symlinks=False))

    @rule(path=PATHS, name=XATTRS)
    def removexattr(self, path: str, name: str) -> None:
        self.both(lambda base: os.removexattr(base / path, name, follow_symlinks=False))

    @rule(path=PATHS, name=XATTRS)
    def getxattr(self, path: str, name: str) -> None:
        self.both(lambda base: os.getxattr(base / path, name, follow_symlinks=False))

    # Descriptors, which may outlive the names.

    @rule(slot=SLOTS, path=PATHS, flags=st.sampled_from([os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_APPEND, os.O_PATH]))
    def open_by_name(self, slot: int, path: str, flags: int) -> None:
        self.close(slot)
        opened: list[int] = []

        def call(base: Path) -> str:
            if flags != os.O_PATH and _is_fifo(base / path):
                return "no peer would come"
            opened.append(os.open(base / path, flags | os.O_NOFOLLOW))
            return "opened"

        self.both(call)
        if opened:
            self.open[slot] = opened[0], opened[1]

    @rule(slot=SLOTS)
    def close(self, slot: int) -> None:
        for fd in self.open.pop(slot, ()):
            os.close(fd)

    @rule(slot=SLOTS, offset=SIZES, data=DATA)
    def pwrite(self, slot: int, offset: int, data: bytes) -> None:
        self.on_slot(slot, lambda fd: os.pwrite(fd, data, offset))

    @rule(slot=SLOTS, offset=SIZES, size=SIZES)
    def pread(self, slot: int, offset: int, size: int) -> None:
        self.on_slot(slot, lambda fd: os.pread(fd, size, offset))

    @rule(slot=SLOTS, size=SIZES)
    def ftruncate(self, slot: int, size: int) -> None:
        self.on_slot(slot, lambda fd: os.ftruncate(fd, size) if os.fstat(fd).st_size != size else None)

    @rule(slot=SLOTS)
    def fstat(self, slot: int) -> None:
        self.on_slot(slot, lambda fd: status(os.fstat(fd)))

    @rule(slot=SLOTS, mode=MODES)
    def fchmod(self, slot: int, mode: int) -> None:
        self.on_slot(slot, lambda fd: os.fchmod(fd, mode))

    @rule(slot=SLOTS, times=st.tuples(st.integers(0, PAST), st.integers(0, PAST)))
    def futimens(self, slot: int, times: tuple[int, int]) -> None:
        self.on_slot(slot, lambda fd: os.utime(fd, times))

    @rule(slot=SLOTS)
    def fsync(self, slot: int) -> None:
        self.on_slot(slot, os.fsync)

    @rule(slot=SLOTS)
    def list_directory(self, slot: int) -> None:
        self.on_slot(slot, lambda fd: sorted(os.listdir(fd)))

    @rule(slot=SLOTS, name=st.sampled_from(["f", "n", "x"]))
    def create_below(self, slot: int, name: str) -> None:
        def call(fd: int) -> None:
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640, dir_fd=fd))

        self.on_slot(slot, call)

    @rule(slot=SLOTS, name=XATTRS)
    def fsetxattr(self, slot: int, name: str) -> None:
        self.on_slot(slot, lambda fd: os.setxattr(fd, name, b"by descriptor"))

    @rule(slot=SLOTS, mode=ALLOCATIONS, offset=SIZES, length=SIZES)
    def fallocate(self, slot: int, mode: int, offset: int, length: int) -> None:
        if self.engine != "pyfuse3":  # which has none
            self.on_slot(slot, lambda fd: syscalls.fallocate(fd, mode, offset, length))

    @rule(slot=SLOTS, offset=SIZES, data=DATA)
    def write_through_a_mapping(self, slot: int, offset: int, data: bytes) -> None:
        def call(fd: int) -> bytes:
            size = os.fstat(fd).st_size
            if not size or not stat.S_ISREG(os.fstat(fd).st_mode):
                return b""  # Python refuses to map nothing
            with mmap.mmap(fd, size) as mapped:
                room = data[: max(0, size - offset)]
                mapped[offset : offset + len(room)] = room
                mapped.flush()
                return mapped[:100]

        self.on_slot(slot, call)

    @rule(slot=SLOTS, offset=SIZES, whence=st.sampled_from([os.SEEK_DATA, os.SEEK_HOLE]))
    def seek(self, slot: int, offset: int, whence: int) -> None:
        """Where holes are is the file system's business; only what is skipped must be zeros or data."""
        if self.engine == "pyfuse3":
            return
        for fd in self.open.get(slot, ()):
            if not stat.S_ISREG(os.fstat(fd).st_mode) or outcome(lambda fd=fd: os.pread(fd, 1, 0)) == "EBADF":
                return
            size = os.fstat(fd).st_size
            found = outcome(lambda fd=fd: os.lseek(fd, offset, whence))
            if offset >= size:
                assert found == "ENXIO"
            elif whence == os.SEEK_DATA:
                until = size if found == "ENXIO" else found
                assert not any(os.pread(fd, until - offset, offset)), f"there is data before {found}"
            else:
                assert offset <= found <= size

    @rule()
    def remount(self) -> None:
        self._close_all()
        with self.there:
            self.mounted.unmount()
            self.mounted.mount()
        self._numbers_may_change()

    def _numbers_may_change(self) -> None:
        if self.engine == "pyfuse3":
            self.inodes = {}  # it shows node ids, which are given out anew

    @precondition(lambda self: os.geteuid() == 0)
    @rule()
    def forget(self) -> None:
        self.mounted.forget()
        self._numbers_may_change()

    def _close_all(self) -> None:
        for slot in list(self.open):
            self.close(slot)


def _is_fifo(path: Path) -> bool:
    return stat.S_ISFIFO(path.stat().st_mode)


@pytest.mark.only_root  # makes the kernel forget by remounting
@pytest.mark.parametrize("lower", LOWERS)
def test_they_do_the_same_while_caches_are_dropped(tmp_path: Path, lower: str) -> None:
    class Machine(Comparison):
        pressed = True

    Machine.lower, Machine.engine, Machine.base = Lower(tmp_path / "lower", lower), "direct", tmp_path
    run_state_machine_as_test(Machine, settings=_settings(EXAMPLES or 12))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("lower", LOWERS)
def test_mount_and_plain_directory_do_the_same(tmp_path: Path, lower: str, engine: str) -> None:
    class Machine(Comparison):
        pass

    Machine.lower, Machine.engine, Machine.base = Lower(tmp_path / "lower", lower), engine, tmp_path
    run_state_machine_as_test(Machine, settings=_settings(EXAMPLES or (40 if engine == "direct" else 15)))


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=60 if EXAMPLES else 40,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
