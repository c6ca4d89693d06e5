"""One mount and one plain directory: doing the same on both sides, and comparing what came of it."""

from __future__ import annotations

import itertools
import mmap
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.support.compare import differences, everything, outcome
from tests.support.content import BIG, CONTENT, Lower, build_plain
from tests.support.mounted import Mounted
from tests.support.waiting import settles

NEW = ["n", "o", "d/n", "d/e/n", "n/f", "n/n", "o/f", "m/n", "empty/f", "d/e/x/n", "n/n/f", "o/n", "x" * 255, "y" * 256]
"""Names that are not there at the start."""

Pick = str | int | tuple[int, str]
"""A path; the number of one that is there; or the number of a directory that is there, and a name in it."""

NAMES = ["f", "n", "g", "e", "x"]
PLACES: st.SearchStrategy[Pick] = st.one_of(
    st.sampled_from([item.path for item in CONTENT] + NEW),
    st.integers(0, 60),
    st.tuples(st.integers(0, 30), st.sampled_from(NAMES)),
)
MODES = st.sampled_from([0o600, 0o644, 0o755, 0o4755, 0o2755, 0o1777])
SIZES = st.sampled_from([0, 1, 5, 4096, 4097, 10_000, 70_000, BIG - 1])
DATA = st.sampled_from([b"", b"x", b"hello", b"0" * 4096, bytes(100), b"z" * 9000])
SLOTS = st.integers(0, 3)


class Sides(RuleBasedStateMachine):
    """The two sides, and descriptors and mappings that are open on both."""

    lower: Lower
    engine: str
    base: Path
    overrides = False
    pressed = False
    """Whether the kernel is made to forget all the time, as when memory is short."""
    numbers = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.place = self.base / f"{next(self.numbers)}"
        self.place.mkdir()
        self.mounted = Mounted(self.place, self.lower.open, self.engine, overrides=self.overrides)
        self.plain = self.place / "plain"
        self.merged = self.mounted.target
        self.open: dict[int, tuple[int, int]] = {}
        self.mapped: dict[int, tuple[mmap.mmap, mmap.mmap]] = {}
        self.pressure = Thread(target=self._press)
        self.released, self.there = Event(), Lock()
        self.inodes: dict[int, int] = {}  # inode number in the plain directory -> on the mount
        self.pins: dict[int, int] = {}  # the same -> a descriptor, so that no other file there gets the number
        self.failed = False
        self.always = True

    @initialize(always=st.booleans())
    def begin(self, always: bool) -> None:
        """`always`: compare after each step; else the mount is not looked at but by the steps themselves."""
        self.always = always
        build_plain(self.plain)
        self.mounted.mount()
        if self.pressed:
            self.pressure.start()

    def _press(self) -> None:
        while not self.released.wait(0.02):
            with self.there:
                self.mounted.forget()

    def teardown(self) -> None:
        try:
            self.released.set()
            if self.pressure.is_alive():
                self.pressure.join()
            if not self.failed and self.plain.exists():
                self._end()
        finally:
            self._close_all()
            for fd in self.pins.values():
                os.close(fd)
            self.mounted.unmount()
            shutil.rmtree(self.place)

    def _end(self) -> None:
        """At the end all is right, is so after a remount, and nothing is left over."""
        self.compare()
        self._close_all()
        if self.engine == "direct" and os.geteuid() == 0:
            self.mounted.forget()
            closed = settles(lambda: not self.mounted.removed_and_open(), 10)
            self.expect(closed, f"the server keeps open {self.mounted.removed_and_open()}")
        self.remount()
        self.compare()
        self.mounted.unmount()
        self.expect(os.listdir(self.mounted.work / "work") == [], "temporaries are left")
        for record in (self.mounted.work / "origins").iterdir():
            _, left = record.name.split(".")
            self.expect(left != "0" or record.lstat().st_nlink > 1, f"{record.name} stands for no name")

    # Comparing.

    def expect(self, right: bool, message: str) -> None:
        """Fail with a message if something is not right."""
        if not right:
            self.failed = True
            raise AssertionError(message)

    def _same_outcome(self, right: Callable[[], Any], ours: Callable[[], Any]) -> Any:
        wanted, found = outcome(right), outcome(ours)
        self.expect(found == wanted, f"gave {found!r:.300}, should give {wanted!r:.300}")
        return wanted

    def both(self, call: Callable[[Path], Any]) -> Any:
        """Do it on both sides and compare."""
        return self._same_outcome(lambda: call(self.plain), lambda: call(self.merged))

    def on_slot(self, slot: int, call: Callable[[int], Any]) -> None:
        """The same with a descriptor that is open on both."""
        if slot in self.open:
            right, ours = self.open[slot]
            self._same_outcome(lambda: call(right), lambda: call(ours))

    def on_slots(self, one: int, other: int, call: Callable[[int, int], Any]) -> None:
        """The same with two of them."""
        if one in self.open and other in self.open:
            (right, ours), (other_right, other_ours) = self.open[one], self.open[other]
            self._same_outcome(lambda: call(right, other_right), lambda: call(ours, other_ours))

    def in_slot(self, slot: int, call: Callable[[Path], int]) -> None:
        """Open something on both sides, and keep the descriptors there."""
        self.close(slot)
        opened: list[int] = []
        self.both(lambda base: opened.append(call(base)))
        if opened:
            self.open[slot] = opened[0], opened[1]

    def compare(self) -> None:
        """Everything is the same on both sides."""
        right, right_numbers = everything(self.plain)
        ours, our_numbers = everything(self.merged)
        found = differences(ours, right)
        self.expect(not found, "\n".join(found))
        pairs = {right_numbers[path]: our_numbers[path] for path in right}
        self.expect(len(set(pairs.values())) == len(pairs), "two files show one inode number")
        for path, number in right_numbers.items():
            self.expect(our_numbers[path] == pairs[number], f"{path}: names of one file show different inode numbers")
            before = self.inodes.get(number, our_numbers[path])
            self.expect(before == our_numbers[path], f"{path}: the inode number changed")
            if number not in self.pins:
                self.pins[number] = os.open(self.plain / path, os.O_PATH | os.O_NOFOLLOW)
        self.inodes = pairs

    @invariant()
    def same(self) -> None:
        if self.always and self.plain.exists():
            self.compare()

    @rule()
    def look(self) -> None:
        self.compare()

    # Names and descriptors.

    def path(self, pick: Pick) -> str:
        """The path that is meant."""
        if isinstance(pick, str):
            return pick
        there = list(os.walk(self.plain))
        if isinstance(pick, tuple):
            number, name = pick
            found = sorted(where for where, _, _ in there)
            path = os.path.relpath(os.path.join(found[number % len(found)], name), self.plain)
        else:
            found = sorted(os.path.join(where, name) for where, below, files in there for name in below + files)
            path = os.path.relpath(found[pick % len(found)], self.plain) if found else "n"
        note(f"  {pick} is {path}")
        return path

    @rule(slot=SLOTS)
    def close(self, slot: int) -> None:
        for fd in self.open.pop(slot, ()):
            os.close(fd)

    @rule(slot=SLOTS)
    def unmap(self, slot: int) -> None:
        for mapping in self.mapped.pop(slot, ()):
            mapping.close()

    def _close_all(self) -> None:
        for slot in list(self.open):
            self.close(slot)
        for slot in list(self.mapped):
            self.unmap(slot)

    # The mount.

    @rule()
    def remount(self) -> None:
        self._close_all()
        with self.there:
            self.mounted.unmount()
            self.mounted.mount()
        self._numbers_may_change()

    @precondition(lambda self: os.geteuid() == 0)
    @rule()
    def forget(self) -> None:
        self.mounted.forget()
        self._numbers_may_change()

    def _numbers_may_change(self) -> None:
        if self.engine == "pyfuse3":
            self.inodes = {}  # it shows node ids, which are given out anew
