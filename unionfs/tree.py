"""The contract of a read-only tree, the lower side of a union.

A tree answers by *node id*. The root is node id 1. Two trees exist: `unionfs.image.tree.CompiledImage`
(an index over layer tars, where the node id is the row number) and `unionfs.live.directories.DirectoryStack`
(live directories merged). How many layers made a tree is its own business.

Attributes travel as the 88 bytes of the kernel's ``struct fuse_attr`` (include/uapi/linux/fuse.h), because
that is what a compiled image stores and the kernel wants; `unionfs.fuse.wire.Attr` names the fields.

Names are in their form on disk (`unionfs.whiteout.stored`), but for those in a ready-made listing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

ROOT = 1


DOT = 160
DOTDOT = 2 * DOT
"""Cookies of "." and "..": where their records end in the ready-made listing of a compiled image. In every directory
they and all other cookies are the same however it is listed, so it may change that in the middle of a listing."""


BOUNDLESS = 1 << 40
"""Bytes: the size of a `Tree.boundless` file where something reads it, more than any has."""


def new_generation() -> int:
    """A generation for node ids that hardly another mount has had; the kernel keeps 32 bits."""
    return int.from_bytes(os.urandom(4), "little") or 1


class Entry(NamedTuple):
    """One name in a directory of a tree. `cookie` is what READDIR passes to go on *after* this entry."""

    name: bytes
    node: int
    type: int  # S_IFMT bits of the mode, shifted right by 12 as in d_type
    cookie: int


class Run(NamedTuple):
    """Where bytes of a file are: `length` bytes at `offset` of `fd`; an `fd` of -1 is a hole (zeros)."""

    fd: int
    offset: int
    length: int


class Tree(Protocol):
    """Every method raises `OSError`; a node id that was never given out is a programming error."""

    timeout: float
    """Seconds for which names and attributes hold; `wire.FOREVER` where nothing but the mount may change them."""

    stable: bool
    """Node ids keep their meaning for ever (rows): lookups need no counting and `forget` does nothing."""

    generation: int
    """Of the ids above `rows`; see `wire.Validity`."""

    @property
    def rows(self) -> int:
        """Node ids up to this one mean the same in every mount of the tree; 0 for none."""

    @property
    def max_uid(self) -> int:
        """The highest owner that `attr` may show without regard to this process's user namespace; 0 if it
        shows only what stat(2) says, which is mapped already."""

    @property
    def max_gid(self) -> int:
        """The same of groups."""

    def lookup(self, parent: int, name: bytes) -> int:
        """The node id of `name` in the directory `parent`, or 0 where there is none.

        Counts as one kernel lookup of the node when the tree is not `stable`; see `forget`.
        """

    def contains(self, parent: int, name: bytes) -> bool:
        """Whether the directory `parent` has `name`; as `lookup`, but never counts."""

    def attr(self, node: int) -> bytes:
        """The node's ``struct fuse_attr``, 88 bytes. `ino` is stable across mounts.

        nlink of a directory: 2 and one for each directory in it, or what the disk says, or 1 where that is not known.
        """

    def entry(self, parent: int, name: bytes) -> bytes | None:
        """The whole answer to LOOKUP, 128 bytes of ``struct fuse_entry_out``; None where there is no such name.

        Counts like `lookup`.
        """

    def entries(self, node: int, cookie: int = 0) -> Iterator[Entry]:
        """The names of directory `node` after `cookie`, without "." and "..", each keeping its cookie.

        Does not count as lookups. Cookies are even, ascending, above DOTDOT, and below 2**31 while they can be, which
        32-bit programs need. Any number may come as one (seekdir(3)); 0 lets a live directory be read anew.
        """

    def listing(self, node: int, cookie: int, size: int) -> bytes | memoryview | None:
        """A ready-made READDIRPLUS reply of at most `size` bytes from `cookie` on, with "." and "..", or
        None where it must be built. Its cookies are those of `entries`; the last record may be cut."""

    def ahead(self) -> bool:
        """Do a little of what the next requests probably need, while there is none; False where that is nothing."""

    def boundless(self, node: int) -> bool:
        """Whether st_size of a file says nothing of how much can be read (proc, sysfs)."""

    @property
    def holds_mounts(self) -> bool:
        """Whether anything is open that keeps the host from unmounting what it has mounted below a layer."""

    def give_up_mounts(self) -> None:
        """Close that; for when there was no request for a while."""

    def has_entries(self, node: int) -> bool:
        """Whether directory `node` has any name in it."""

    def readlink(self, node: int) -> bytes:
        """The target of a symbolic link."""

    def xattrs(self, node: int) -> Mapping[bytes, bytes]:
        """Extended attributes, without those that are marks of layers (overlay.*, override_stat)."""

    def locate(self, node: int, offset: int, size: int) -> Run:
        """The first run of bytes of a regular file from `offset`, at most `size` long; length 0 at the end.

        The descriptor is borrowed: it is good until the next call of this tree; who needs it longer, dups it.
        A run of a live file may promise more than there is: a short read of it is the end of the file. Where the tree
        is `stable`, it is damage.
        """

    def seek(self, node: int, offset: int, whence: int) -> int:
        """Where the next data (SEEK_DATA) or hole (SEEK_HOLE) of a regular file begins; ENXIO for none (lseek(2))."""

    def names(self, node: int) -> list[tuple[int, bytes]]:
        """The names that the tree knows of a node, as (parent node id, name). A directory has exactly one,
        the root none. A compiled image knows all; live directories know those that were looked up."""

    def foreign_ino(self, device: int, ino: int) -> int:
        """An inode number for a file that is not of this tree (the upper's), distinct from all of the tree's."""

    def new_id(self) -> int:
        """A node id that never was and never will be one of this tree, for something that is in the upper alone."""

    def owns(self, node: int) -> bool:
        """Whether a node id is one of this tree."""

    def remember(self, node: int) -> None:
        """Count one more lookup of a node that is known already, so that its id stays."""

    def forget(self, node: int, count: int) -> None:
        """The kernel dropped `count` lookups of a node; at zero its id may be given up."""

    def give_up(self) -> None:
        """Close what is open only because it may be wanted again: descriptors have run out."""

    def statvfs(self) -> os.statvfs_result:
        """What statfs(2) shows of a mount that has no upper."""

    def close(self) -> None:
        """Release descriptors and mappings."""
