"""Inode numbers for files of several devices.

What lies on the device of the first layer shows the host's own numbers, so that an upper on the same device
needs no translation; other devices have an index in bits 48 to 63. A number of 2**48 or more, which some file
systems use, is folded into 48 bits by a multiplicative hash: two such files may then show the same number.
Indexes are given to the layers in their order and to submounts as they are met.
"""

from __future__ import annotations

import os
from typing import Final

_BITS: Final = 48
_MASK: Final = (1 << _BITS) - 1
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
        if ino > _MASK:
            ino = (ino * _GOLDEN & 0xFFFFFFFFFFFFFFFF) >> 64 - _BITS
        index = self._indexes[device]
        return (index & 0xFFFF) << _BITS | ino if index else ino

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
