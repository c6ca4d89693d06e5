"""Inode numbers for files of several devices, below 2**32 where that can be: many 32-bit programs know no others.

What lies on the device of the first layer shows the host's own numbers, so that an upper on the same device needs no
translation. Other devices have an index, in the order of the layers and as submounts are met, and share the upper half
of the 32-bit numbers: half of it is the first one's, half of the rest the second one's, and so on.

    first layer's device   0 and 31 bits of the number
    index 1                1 0 and 30 bits
    index 2                1 1 0 and 29 bits ...

What does not fit has its index in bits 48 to 63; of the first device only numbers from 2**31 to 2**32 move there. A
number of 2**47 or more, which some file systems use, is folded by a multiplicative hash: two such files may then show
the same number.
"""

from __future__ import annotations

import os
from typing import Final

_SHORT: Final = 31
"""Bits of the first device's numbers that leave room for others below 2**32."""

_BITS: Final = 48
_FOLDED: Final = 1 << _BITS - 1
_MOVED: Final = 0xFFFF << _BITS
_GOLDEN: Final = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio: Knuth's multiplicative hashing


Key = int | tuple[int, bytes, int]


class _Indexes(dict[int, int]):
    """Index by st_dev, a new one for a device that was not met before."""

    def __missing__(self, device: int) -> int:
        index = self[device] = len(self)
        return index


class InodeNumbers:
    """The table of devices of one tree."""

    def __init__(self) -> None:
        self._indexes = _Indexes()

    def meet(self, device: int) -> None:
        """Give an st_dev its index now."""
        self._indexes[device]

    def shown(self, device: int, ino: int) -> int:
        """st_ino as the mount shows it."""
        index = self._indexes[device]
        room = _SHORT - index
        if room > 0 and not ino >> room:
            return -1 << room + 1 & 0xFFFFFFFF | ino if index else ino
        if ino >= _FOLDED:
            ino = (ino * _GOLDEN & 0xFFFFFFFFFFFFFFFF) >> 65 - _BITS | _FOLDED
        if index:
            return (index & 0xFFFF) << _BITS | ino
        return ino if ino >> 32 else _MOVED | ino

    def identity(self, status: os.stat_result) -> int:
        """A number that no other file has, for our own tables.

        The type is a part of it: the host gives numbers of removed files to new ones, and what the kernel
        knows as a file must not become a symlink.
        """
        kind = status.st_mode >> 12
        index = self._indexes[status.st_dev]
        return (index << 64 | status.st_ino) << 4 | kind if index else status.st_ino << 4 | kind

    def key(self, status: os.stat_result, parent: int, name: bytes, unsteady: set[int]) -> Key:
        """What a file is known by: its number, so that all its names are one, or its name where it has one alone and
        numbers may change.
        """
        if unsteady and status.st_nlink == 1 and status.st_dev in unsteady:
            return parent, name, status.st_mode >> 12
        return self.identity(status)

    def same(self, key: Key, status: os.stat_result, unsteady: set[int]) -> bool:
        """Whether a file that was found by a name of it is still the same."""
        kind = status.st_mode >> 12
        if not isinstance(key, int):
            return key[2] == kind
        return self.identity(status) == key or (status.st_dev in unsteady and key & 15 == kind)
