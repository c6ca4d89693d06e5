"""Steps that make, move and remove names, by path and relative to a directory that is open."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tests.support.compare import status
from tests.union.stateful.sides import DATA, MODES, NAMES, PLACES, SLOTS, Pick, Sides
from unionfs import syscalls

BELOW = st.sampled_from([*NAMES, *(f"../{name}" for name in NAMES), "e/f", "..", "."])
"""Names relative to a directory that is open."""

RENAMES = st.sampled_from(
    [0, 0, 0, syscalls.RENAME_NOREPLACE, syscalls.RENAME_EXCHANGE, syscalls.RENAME_EXCHANGE, syscalls.RENAME_WHITEOUT]
)
SPECIAL = st.sampled_from([stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK])
NUMBERS = st.sampled_from([0, os.makedev(240, 77)])
"""Of devices that nobody can open."""


def make_file(name: str | Path, mode: int, data: bytes, dir_fd: int | None = None) -> None:
    """A new file with data."""
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode, dir_fd=dir_fd)
    try:
        assert os.write(fd, data) == len(data)
    finally:
        os.close(fd)


class Names(Sides):
    """By path."""

    @rule(pick=PLACES, mode=MODES, data=DATA)
    def create(self, pick: Pick, mode: int, data: bytes) -> None:
        path = self.path(pick)
        self.both(lambda base: make_file(base / path, mode, data))

    @rule(pick=PLACES, mode=MODES)
    def mkdir(self, pick: Pick, mode: int) -> None:
        path = self.path(pick)
        self.both(lambda base: os.mkdir(base / path, mode))

    @rule(pick=PLACES, kind=SPECIAL, mode=MODES, number=NUMBERS)
    def mknod(self, pick: Pick, kind: int, mode: int, number: int) -> None:
        path = self.path(pick)
        if os.geteuid() == 0 or kind in (stat.S_IFIFO, stat.S_IFSOCK):
            self.both(lambda base: os.mknod(base / path, kind | mode, number))

    @rule(pick=PLACES, text=st.sampled_from(["n", "d/f", "../a", ".", "d", "m/f", "z" * 3000]))
    def symlink(self, pick: Pick, text: str) -> None:
        path = self.path(pick)
        self.both(lambda base: os.symlink(text, base / path))

    @rule(old=PLACES, new=PLACES)
    def link(self, old: Pick, new: Pick) -> None:
        one, other = self.path(old), self.path(new)
        self.both(lambda base: os.link(base / one, base / other, follow_symlinks=False))

    @rule(pick=PLACES)
    def unlink(self, pick: Pick) -> None:
        path = self.path(pick)
        self.both(lambda base: os.unlink(base / path))

    @rule(pick=PLACES)
    def rmdir(self, pick: Pick) -> None:
        path = self.path(pick)
        self.both(lambda base: os.rmdir(base / path))

    @rule(pick=PLACES, itself=st.booleans())
    def remove_all(self, pick: Pick, itself: bool) -> None:
        """A whole directory, or what is in it."""
        path = self.path(pick)

        def call(base: Path) -> None:
            if not stat.S_ISDIR(os.lstat(base / path).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, "rmtree would open a fifo, and wait")
            shutil.rmtree(base / path)
            if not itself:
                os.mkdir(base / path)

        self.both(call)

    @rule(old=PLACES, new=PLACES, flags=RENAMES)
    def rename(self, old: Pick, new: Pick, flags: int) -> None:
        one, other = self.path(old), self.path(new)

        def call(base: Path) -> None:
            here = syscalls.AT_FDCWD
            syscalls.renameat2(here, os.fsencode(base / one), here, os.fsencode(base / other), flags)

        self.both(call)


class NamesBelow(Sides):
    """Relative to a directory that is open, wherever it is now, and by a descriptor of the file itself."""

    def _below(self, slot: int, call: Callable[[int], object]) -> None:
        self.on_slot(slot, lambda fd: call(fd) and None)

    @rule(slot=SLOTS, name=BELOW, data=DATA)
    def create_below(self, slot: int, name: str, data: bytes) -> None:
        self._below(slot, lambda fd: make_file(name, 0o640, data, fd))

    @rule(slot=SLOTS, name=BELOW, mode=MODES)
    def mkdir_below(self, slot: int, name: str, mode: int) -> None:
        self._below(slot, lambda fd: os.mkdir(name, mode, dir_fd=fd))

    @rule(slot=SLOTS, name=BELOW, text=st.sampled_from(["f", "../n"]))
    def symlink_below(self, slot: int, name: str, text: str) -> None:
        self._below(slot, lambda fd: os.symlink(text, name, dir_fd=fd))

    @rule(slot=SLOTS, name=BELOW)
    def unlink_below(self, slot: int, name: str) -> None:
        self._below(slot, lambda fd: os.unlink(name, dir_fd=fd))

    @rule(slot=SLOTS, name=BELOW)
    def rmdir_below(self, slot: int, name: str) -> None:
        self._below(slot, lambda fd: os.rmdir(name, dir_fd=fd))

    @rule(slot=SLOTS, name=BELOW)
    def stat_below(self, slot: int, name: str) -> None:
        self.on_slot(slot, lambda fd: status(os.stat(name, dir_fd=fd, follow_symlinks=False)))

    @rule(one=SLOTS, old=BELOW, other=SLOTS, new=BELOW, flags=RENAMES)
    def rename_below(self, one: int, old: str, other: int, new: str, flags: int) -> None:
        self.on_slots(
            one, other, lambda fd, other_fd: syscalls.renameat2(fd, old.encode(), other_fd, new.encode(), flags)
        )

    @rule(one=SLOTS, old=BELOW, other=SLOTS, new=BELOW)
    def link_below(self, one: int, old: str, other: int, new: str) -> None:
        def call(fd: int, other_fd: int) -> None:
            os.link(old, new, src_dir_fd=fd, dst_dir_fd=other_fd, follow_symlinks=False)

        self.on_slots(one, other, call)

    @rule(slot=SLOTS)
    def list_below(self, slot: int) -> None:
        def call(fd: int) -> list[tuple[str, bool, bool]]:
            with os.scandir(fd) as entries:
                found = list(entries)
            for entry in found:
                number = os.stat(entry.name, dir_fd=fd, follow_symlinks=False).st_ino
                self.expect(entry.inode() == number, f"d_ino of {entry.name} is not its st_ino")
            return sorted((entry.name, entry.is_dir(follow_symlinks=False), entry.is_symlink()) for entry in found)

        self.on_slot(slot, call)

    @rule(slot=SLOTS, pick=PLACES)
    def link_what_is_open(self, slot: int, pick: Pick) -> None:
        """A name for an open file, which may have none."""
        path = self.path(pick)
        if slot not in self.open:
            return
        right, ours = self.open[slot]

        def call(base: Path) -> None:
            fd = right if base == self.plain else ours
            os.link(f"/proc/self/fd/{fd}", base / path, src_dir_fd=0, follow_symlinks=True)

        self.both(call)

    @precondition(lambda self: self.engine == "direct")  # pyfuse3 has none
    @rule(slot=SLOTS, pick=PLACES, flags=st.sampled_from([0, 0, os.O_EXCL]))
    def nameless(self, slot: int, pick: Pick, flags: int) -> None:
        path = self.path(pick)
        self.in_slot(slot, lambda base: os.open(base / path, os.O_TMPFILE | os.O_RDWR | flags, 0o640))
