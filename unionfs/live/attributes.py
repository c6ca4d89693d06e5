"""What stat(2) says of live files, in the structures that the kernel wants."""

from __future__ import annotations

import os
import stat
from collections.abc import Container
from typing import Final

from unionfs.fuse import wire
from unionfs.live.inonumbers import InodeNumbers
from unionfs.override import Override

_SECOND: Final = 1_000_000_000
_PADDING: Final = [bytes(-length % 8) for length in range(8)]


class _All:
    def __contains__(self, item: object) -> bool:
        return True


LEAST_RECORD: Final = wire.DIRENTPLUS.size + 8
"""The bytes of a record with the shortest name."""


def record_size(name: bytes) -> int:
    """The bytes of the READDIRPLUS record of a name."""
    return wire.DIRENTPLUS.size + len(name) + (-len(name) & 7)


class LiveAttributes:
    """Packs for one tree.

    `uncounted` are (st_dev, st_ino) of directories of which something is hidden, None for all. Such a directory, and
    one that merges several, has one link: "count unknown" to find(1). All others have what their disk says.
    """

    def __init__(
        self, numbers: InodeNumbers, valid: wire.Validity, uncounted: Container[tuple[int, int]] | None
    ) -> None:
        self._shown = numbers.shown
        self._valid = valid.generation, *valid.entry_times
        self._uncounted = _All() if uncounted is None else uncounted

    def attr(self, status: os.stat_result, changed: Override | None, merged: bool = False) -> bytes:
        """``struct fuse_attr``; `changed` is shown instead of owner, mode and device. `merged`: of several layers."""
        mode, uid, gid, rdev = status.st_mode, status.st_uid, status.st_gid, status.st_rdev
        if changed is not None:
            uid, gid, mode, rdev = changed
        nlink = status.st_nlink
        if stat.S_ISDIR(mode) and (merged or (status.st_dev, status.st_ino) in self._uncounted):
            nlink = 1
        atime, atimensec = divmod(status.st_atime_ns, _SECOND)
        mtime, mtimensec = divmod(status.st_mtime_ns, _SECOND)
        ctime, ctimensec = divmod(status.st_ctime_ns, _SECOND)
        return wire.ATTR.pack(
            self._shown(status.st_dev, status.st_ino),
            status.st_size, status.st_blocks, atime, mtime, ctime, atimensec, mtimensec, ctimensec,
            mode, nlink, uid, gid, rdev and wire.encode_rdev(os.major(rdev), os.minor(rdev)),
            status.st_blksize, 0,
        )  # fmt: skip

    def record(self, node: int, status: os.stat_result, cookie: int, name: bytes) -> bytes:
        """``struct fuse_direntplus``, padded, of what has no override and is of one layer: all at once, since walks
        want many."""
        mode, ino, device, nlink, uid, gid, size, atime, mtime, ctime = status
        shown = self._shown(device, ino)
        rdev = status.st_rdev
        length = len(name)
        if mode & 0o170000 == 0o040000 and (device, ino) in self._uncounted:
            nlink = 1
        return wire.DIRENTPLUS.pack(
            node, *self._valid,
            shown, size, status.st_blocks, atime, mtime, ctime,
            status.st_atime_ns % _SECOND, status.st_mtime_ns % _SECOND, status.st_ctime_ns % _SECOND,
            mode, nlink, uid, gid,
            rdev and wire.encode_rdev(os.major(rdev), os.minor(rdev)), status.st_blksize, 0,
            shown, cookie, length, mode >> 12,
        ) + name + _PADDING[length & 7]  # fmt: skip
