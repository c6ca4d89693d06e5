"""What a directory of a tree of live directories holds: its merged names, each with a READDIR cookie that it keeps."""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Final

from unionfs.live.layerdir import LayerDir
from unionfs.tree import Entry


class Names:
    """What a directory holds: types by name, the layers of names that the topmost lacks, statuses where known."""

    __slots__ = ("below", "statuses", "types")

    def __init__(self) -> None:
        self.types: dict[bytes, int] = {}
        self.below: dict[bytes, LayerDir] = {}
        self.statuses: dict[bytes, os.stat_result] = {}


_STEP: Final = 2
"""Cookies of a tree are even."""

_FIRST: Final = 1 << 30
"""The first cookie of a directory that is read for the first time. Those of names that come later go down from here."""

_LOWEST: Final = _FIRST // 2


class Listed:
    """What was there when the directory was last read from its beginning.

    Cookies ascend and never mean another name: one that vanished leaves a gap. New ones come before all others, so
    whoever is in the middle of a listing sees every name that stays exactly once, and none that is new.
    """

    __slots__ = ("_cookies", "_first", "_names", "_types")

    def __init__(self, names: dict[bytes, int]) -> None:
        self._names = list(names)
        self._types = bytes(names.values())
        self._first = _FIRST
        self._cookies: array[int] | None = None  # None: one after the other from `_first` on

    def update(self, names: dict[bytes, int]) -> None:
        """Take over what is there now. Linear in both sizes."""
        if len(names) == len(self._names) and names.keys() == set(self._names):
            self._types = bytes([names[name] for name in self._names])
            return
        known = dict(zip(self._names, self._own(0, len(self._names)), strict=True))
        fresh = [name for name in names if name not in known]
        first = self._first - _STEP * len(fresh)
        if first < _LOWEST:  # a quarter of a billion names have come: none of those is waited behind any more
            self._cookies, first = None, _FIRST
        else:
            kept = [known[name] for name in self._names if name in names]
            self._cookies = array("Q", range(first, self._first, _STEP))
            self._cookies.extend(kept)
        self._first = first
        self._names = [*fresh, *(name for name in self._names if name in names)]
        self._types = bytes([names[name] for name in self._names])

    def _own(self, start: int, end: int) -> Sequence[int]:
        """The cookies of the names from one place to another."""
        if self._cookies is not None:
            return self._cookies[start:end]
        return range(self._first + _STEP * start, self._first + _STEP * end, _STEP)

    def __len__(self) -> int:
        return len(self._names)

    def after(self, cookie: int) -> Iterator[Entry]:
        """The entries after a cookie. Their node is 0: listing a live directory looks nothing up."""
        for name, type_, own in self.rows(cookie, len(self._names)):
            yield Entry(name, 0, type_, own)

    def rows(self, cookie: int, most: int) -> Iterator[tuple[bytes, int, int]]:
        """(name, d_type, cookie) of at most so many entries after a cookie."""
        if self._cookies is not None:
            start = bisect_right(self._cookies, cookie)
        else:
            start = max(0, (cookie - self._first) // _STEP + 1)
        end = start + most
        return zip(self._names[start:end], self._types[start:end], self._own(start, end), strict=False)
