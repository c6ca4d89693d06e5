"""Reading listings ahead: a walk that has listed a directory goes on to those in it.

The front end asks for a small piece of this (`Ahead.work`) where it would only ask the device again. Only reading is
done ahead; counting and numbering happen with the request, so what is never asked for is just dropped. The lower
directories do not change under a union with an infinite timeout; for others nothing is read ahead.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from unionfs.live.names import Names
from unionfs.live.nodes import LiveDirectory

_AT_ONCE: Final = 4
"""So many names are looked at before the device is asked for a request again: some ten microseconds."""
_MOST_NAMES: Final = 1000
"""Read ahead and not asked for yet; one takes about a kilobyte."""
_MOST_WAITING: Final = 1000
"""Directories that may be read next."""


class Reader(Protocol):
    """Who can read a listing: `unionfs.live.listings.Listings`."""

    def read(self, directory: LiveDirectory) -> Names:
        """The names of a directory."""

    def status(self, directory: LiveDirectory, name: bytes, type_: int) -> os.stat_result | None:
        """The status of a name, if that is all there is to it."""


class Ahead:
    """What was read ahead and what is to be, the next last."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._waiting: list[LiveDirectory] = []
        self._read: OrderedDict[LiveDirectory, Names] = OrderedDict()
        self._count = 0
        self._current: Iterator[None] = iter(())

    def listed(self, below: Iterable[LiveDirectory]) -> None:
        """A directory of a walk was listed, with these in it."""
        while self._count > _MOST_NAMES:
            self._count -= len(self._read.popitem(last=False)[1].statuses)
        self._waiting.extend(reversed(list(below)))
        del self._waiting[:-_MOST_WAITING]

    def take(self, directory: LiveDirectory) -> Names | None:
        """What was read of a directory so far, once."""
        names = self._read.pop(directory, None)
        if names is not None:
            self._count -= len(names.statuses)
        return names

    def work(self) -> bool:
        """Read a little; False where there is nothing to do."""
        if next(self._current, True) is None:
            return True
        if not self._waiting or self._count > _MOST_NAMES:
            return False
        self._current = self._look(self._waiting.pop())
        return True

    def _look(self, directory: LiveDirectory) -> Iterator[None]:
        """Yields between pieces. Stops where the directory is asked for."""
        if directory in self._read or not directory.lookups:
            return  # read already, or forgotten meanwhile
        try:
            names = self._reader.read(directory)
            self._read[directory] = names
            yield
            for number, (name, type_) in enumerate(names.types.items()):
                if directory not in self._read:
                    return
                found = self._reader.status(directory, name, type_)
                if found is not None:
                    names.statuses[name] = found
                    self._count += 1
                if number % _AT_ONCE == _AT_ONCE - 1:
                    yield
        except OSError:
            return  # gone or not to be read: the request will say so
