"""What a directory of a tree of live directories holds: its merged names, each with a READDIR cookie that it keeps."""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from collections.abc import Iterator

from unionfs.live.layerdir import LayerDir
from unionfs.tree import Entry


class Names:
    """What a directory holds: types by name, the layers of names that the topmost lacks, statuses where known."""

    __slots__ = ("below", "statuses", "types")

    def __init__(self) -> None:
        self.types: dict[bytes, int] = {}
        self.below: dict[bytes, LayerDir] = {}
        self.statuses: dict[bytes, os.stat_result] = {}


class Listed:
    """What was there when the directory was last read from its beginning.

    Cookies ascend and are never used for another name: a name that vanished leaves a gap, a new one comes
    last, so whoever is in the middle of a listing sees every name that stays exactly once.
    """

    __slots__ = ("_cookies", "_last", "_names", "_types")

    def __init__(self, names: dict[bytes, int]) -> None:
        self._names = list(names)
        self._types = bytes(names.values())
        self._last = len(names)
        self._cookies: array[int] | None = None  # None: the first has 1, the next 2, and so on

    def update(self, names: dict[bytes, int]) -> None:
        """Take over what is there now. Linear in both sizes."""
        if len(names) == len(self._names) and names.keys() == set(self._names):
            self._types = bytes([names[name] for name in self._names])
            return
        cookies = array("Q")
        kept: dict[bytes, int] = {}
        for name, cookie in zip(self._names, self._cookies or range(1, self._last + 1), strict=True):
            if name in names:
                kept[name] = names[name]
                cookies.append(cookie)
        fresh = [name for name in names if name not in kept]
        cookies.extend(range(self._last + 1, self._last + 1 + len(fresh)))
        self._last += len(fresh)
        self._names = [*kept, *fresh]
        self._types = bytes([*kept.values(), *(names[name] for name in fresh)])
        self._cookies = cookies

    def __len__(self) -> int:
        return len(self._names)

    def after(self, cookie: int) -> Iterator[Entry]:
        """The entries after a cookie. Their node is 0: listing a live directory looks nothing up."""
        for name, type_, own in self.rows(cookie, len(self._names)):
            yield Entry(name, 0, type_, own)

    def rows(self, cookie: int, most: int) -> Iterator[tuple[bytes, int, int]]:
        """(name, d_type, cookie) of at most so many entries after a cookie."""
        start = cookie if self._cookies is None else bisect_right(self._cookies, cookie)
        end = start + most
        cookies = range(start + 1, end + 1) if self._cookies is None else self._cookies[start:end]
        return zip(self._names[start:end], self._types[start:end], cookies, strict=False)
