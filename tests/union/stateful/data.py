"""Steps that read and change data, by path, by descriptors that may outlive the names, and through mappings."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Callable
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tests.support.compare import outcome
from tests.union.stateful.sides import DATA, PLACES, SIZES, SLOTS, Pick, Sides
from unionfs import syscalls

ALLOCATIONS = st.sampled_from([0, 1, 3, 16, 17])
"""Modes of fallocate(2): none, KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE, ZERO_RANGE without a new size."""

WRITES = st.sampled_from([0, os.O_APPEND, os.O_TRUNC, os.O_CREAT, os.O_CREAT | os.O_TRUNC])
OPENS = st.sampled_from([os.O_RDONLY, os.O_RDONLY | os.O_DIRECTORY, os.O_RDWR, os.O_RDWR | os.O_APPEND, os.O_PATH])


class Data(Sides):
    """Data of files."""

    @rule(pick=PLACES, data=DATA, flags=WRITES)
    def write_by_name(self, pick: Pick, data: bytes, flags: int) -> None:
        path = self.path(pick)

        def call(base: Path) -> None:
            fd = os.open(base / path, os.O_WRONLY | os.O_NONBLOCK | flags, 0o640)
            try:
                os.write(fd, data)
            finally:
                os.close(fd)

        self.both(call)

    @rule(pick=PLACES, size=SIZES)
    def truncate(self, pick: Pick, size: int) -> None:
        path = self.path(pick)

        def call(base: Path) -> None:
            info = (base / path).stat()
            # To the size that there is: a local disk changes st_mtime. The kernel's fuse_do_setattr() with the
            # writeback cache, which owns that time, does not.
            if info.st_size != size and not stat.S_ISFIFO(info.st_mode):
                os.truncate(base / path, size)

        self.both(call)

    @rule(slot=SLOTS, pick=PLACES, flags=OPENS)
    def open_by_name(self, slot: int, pick: Pick, flags: int) -> None:
        path = self.path(pick)
        special = outcome(lambda: _is_special(self.plain / path)) is True
        if special and flags != os.O_PATH:
            return  # no peer would come to a fifo
        self.in_slot(slot, lambda base: os.open(base / path, flags | os.O_NOFOLLOW))

    @rule(slot=SLOTS, offset=SIZES, data=DATA)
    def pwrite(self, slot: int, offset: int, data: bytes) -> None:
        self.on_slot(slot, lambda fd: os.pwrite(fd, data, offset))

    @rule(slot=SLOTS, data=DATA)
    def write(self, slot: int, data: bytes) -> None:
        """Where the descriptor is: at the end with O_APPEND."""
        self.on_slot(slot, lambda fd: (os.write(fd, data), os.lseek(fd, 0, os.SEEK_CUR)))

    @rule(slot=SLOTS, offset=SIZES, size=SIZES)
    def pread(self, slot: int, offset: int, size: int) -> None:
        self.on_slot(slot, lambda fd: os.pread(fd, size, offset))

    @rule(slot=SLOTS, size=SIZES)
    def ftruncate(self, slot: int, size: int) -> None:
        self.on_slot(slot, lambda fd: os.ftruncate(fd, size) if os.fstat(fd).st_size != size else None)

    @rule(slot=SLOTS)
    def fsync(self, slot: int) -> None:
        self.on_slot(slot, os.fsync)

    @rule(slot=SLOTS, mode=ALLOCATIONS, offset=SIZES, length=SIZES)
    def fallocate(self, slot: int, mode: int, offset: int, length: int) -> None:
        if self.engine != "pyfuse3":  # which has none
            self.on_slot(slot, lambda fd: syscalls.fallocate(fd, mode, offset, length))

    @rule(one=SLOTS, other=SLOTS, start=SIZES, offset=SIZES, length=SIZES)
    def copy_file_range(self, one: int, other: int, start: int, offset: int, length: int) -> None:
        self.on_slots(one, other, lambda fd, other_fd: os.copy_file_range(fd, other_fd, length, start, offset))

    @rule(slot=SLOTS, offset=SIZES, whence=st.sampled_from([os.SEEK_DATA, os.SEEK_HOLE]))
    @precondition(lambda self: self.engine != "pyfuse3")
    def seek(self, slot: int, offset: int, whence: int) -> None:
        """Where holes are is the file system's business; only what is skipped must be zeros or data."""
        for fd in self.open.get(slot, ()):
            if not stat.S_ISREG(os.fstat(fd).st_mode) or outcome(lambda fd=fd: os.pread(fd, 1, 0)) == "EBADF":
                return
            size = os.fstat(fd).st_size
            found = outcome(lambda fd=fd: os.lseek(fd, offset, whence))
            if offset >= size:
                self.expect(found == "ENXIO", f"there is nothing at {offset}, but {found}")
            elif whence == os.SEEK_DATA:
                until = size if found == "ENXIO" else found
                self.expect(not any(os.pread(fd, until - offset, offset)), f"there is data before {found}")
            else:
                self.expect(offset <= found <= size, f"a hole at {found}")
            os.lseek(fd, 0, os.SEEK_SET)

    # Mappings, which may outlive the descriptors.

    @rule(slot=SLOTS, access=st.sampled_from([mmap.ACCESS_READ, mmap.ACCESS_WRITE]))
    def map(self, slot: int, access: int) -> None:
        self.unmap(slot)
        opened: list[mmap.mmap] = []

        def call(fd: int) -> None:
            info = os.fstat(fd)
            if stat.S_ISREG(info.st_mode) and info.st_size:  # Python refuses to map nothing
                opened.append(mmap.mmap(fd, info.st_size, access=access))

        self.on_slot(slot, call)
        if opened:
            self.mapped[slot] = opened[0], opened[1]

    def _on_mapping(self, slot: int, call: Callable[[mmap.mmap, int], object]) -> None:
        """Of a mapping only what still lies in the file can be touched without SIGBUS."""
        if slot in self.mapped:
            right, ours = (lambda it=it: call(it, min(len(it), it.size())) for it in self.mapped[slot])
            self._same_outcome(right, ours)

    @rule(slot=SLOTS)
    def read_mapping(self, slot: int) -> None:
        self._on_mapping(slot, lambda mapping, size: mapping[:size])

    @rule(slot=SLOTS, offset=SIZES, data=DATA)
    def write_mapping(self, slot: int, offset: int, data: bytes) -> None:
        def call(mapping: mmap.mmap, size: int) -> object:
            room = data[: max(0, size - offset)]
            try:
                mapping[offset : offset + len(room)] = room
            except TypeError:
                return "mapped for reading"
            if size:
                mapping.flush()
            return mapping[:size]

        self._on_mapping(slot, call)


def _is_special(path: Path) -> bool:
    mode = path.lstat().st_mode
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode))
