"""Names that came into a directory one after the other, each with a READDIR cookie that it keeps."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

_HOLES: Final = 16
"""So many are nothing to tidy up for."""

_MANY: Final = 1 << 24
"""After so many arrivals an empty set begins anew: a 32-bit program knows cookies below 2**31 only."""


class Arrivals:
    """A set of names that is listed from the newest to the oldest.

    So whoever is in the middle of a listing never meets what has come since: it ends, however often names are renamed
    under it, and shows none twice. A name that goes and comes back is a new one. There are never more holes than names.
    """

    __slots__ = ("_last", "_names", "_numbers", "_order")

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}  # by name; the cookie is twice as much and one
        self._names: list[bytes | None] = []  # from the oldest on; None for one that has gone
        self._order = array("Q")  # their numbers
        self._last = 0

    def __contains__(self, name: bytes) -> bool:
        return name in self._numbers

    def add(self, name: bytes) -> None:
        """A name has come; nothing happens where it is there."""
        if name not in self._numbers:
            self._last += 1
            self._numbers[name] = self._last
            self._names.append(name)
            self._order.append(self._last)

    def discard(self, name: bytes) -> bool:
        """A name has gone, if it was there. Says whether so many have that tables should be made smaller."""
        number = self._numbers.pop(name, None)
        if number is None:
            return False
        self._names[bisect_left(self._order, number)] = None
        if self._last >= _MANY and not self._numbers:
            self._last = 0
        elif len(self._names) <= 2 * len(self._numbers) + _HOLES:
            return False
        self._close_up()
        return True

    def _close_up(self) -> None:
        """Forget the holes. The dictionary is made anew, too: it would keep the room that it once had."""
        left = [name for name in self._names if name is not None]
        self._order = array("Q", map(self._numbers.__getitem__, left))
        self._numbers = dict(zip(left, self._order, strict=True))
        self._names[:] = left

    def after(self, cookie: int) -> Iterator[tuple[bytes, int]]:
        """(name, cookie) of what comes after `cookie` in a listing; from the newest on for 0."""
        end = bisect_left(self._order, cookie >> 1) if cookie else len(self._order)
        for place in range(end - 1, -1, -1):
            name = self._names[place]
            if name is not None:
                yield name, self._order[place] << 1 | 1
