"""The working set of the compiler: inodes by number, kept in flat columns rather than an object each.

A million files take about 88 MB of attributes here and 150 MB of directories; objects would take thrice that.
"""

from __future__ import annotations

import stat
from array import array

from unionfs.fuse import wire
from unionfs.image.format import ATTR_SIZE, XATTR
from unionfs.image.layer import Member
from unionfs.xattrnames import shown

_DIRECTORY_SIZE = 4096  # what a directory shows as size, since tar has none; counted as 8 blocks


class Inodes:
    """Inodes of all layers, also of those that later layers hide. Number 0 is none."""

    def __init__(self) -> None:
        self.attrs = bytearray(ATTR_SIZE)  # packed; inode number and link count are filled in when rows are
        self.data = array("Q", [0])  # offset in the layer tar
        self.layers = array("I", [0])
        self.targets: dict[int, bytes] = {}  # of symbolic links
        self.xattrs: dict[int, bytes] = {}  # packed, equal ones shared
        self.extents: dict[int, list[tuple[int, int, int]]] = {}  # of sparse files
        self.children: dict[int, dict[bytes, int]] = {}  # of directories
        self._packed: dict[bytes, bytes] = {}

    def add(self, member: Member, layer: int) -> int:
        """A new inode for a member that is not a hard link."""
        mode, size, stored = member.mode, member.size, member.size
        kind = stat.S_IFMT(mode)
        if kind == stat.S_IFLNK:
            # A symbolic link's mode means nothing on Linux, which shows 0777 for all.
            mode, size, stored = stat.S_IFLNK | 0o777, len(member.link), 0
        elif kind == stat.S_IFDIR:
            size = stored = _DIRECTORY_SIZE
        elif member.extents is not None:
            stored = sum(length for _, length, _ in member.extents)
        inode = self._append(mode, size, stored, member.uid, member.gid, member.rdev, member.mtime, member.atime)
        self.data[inode] = member.data
        self.layers[inode] = layer
        if kind == stat.S_IFDIR:
            self.children[inode] = {}
        elif kind == stat.S_IFLNK:
            self.targets[inode] = member.link
        elif member.extents is not None:
            self.extents[inode] = member.extents
        if member.xattrs:
            self._set_xattrs(inode, member.xattrs)
        return inode

    def add_directory(self) -> int:
        """A directory that no member describes: root's, mode 0755, of 1970."""
        inode = self._append(stat.S_IFDIR | 0o755, _DIRECTORY_SIZE, _DIRECTORY_SIZE, 0, 0, 0, (0, 0), (0, 0))
        self.children[inode] = {}
        return inode

    def describe(self, inode: int, like: int) -> None:
        """Give a directory the attributes of another."""
        at, source = inode * ATTR_SIZE, like * ATTR_SIZE
        self.attrs[at : at + ATTR_SIZE] = self.attrs[source : source + ATTR_SIZE]
        self.xattrs.pop(inode, None)
        if like in self.xattrs:
            self.xattrs[inode] = self.xattrs[like]

    def _append(
        self,
        mode: int,
        size: int,
        stored: int,
        uid: int,
        gid: int,
        rdev: int,
        mtime: tuple[int, int],
        atime: tuple[int, int],
    ) -> int:
        blocks = (stored + 511) // 512
        seconds, nanoseconds = mtime
        # The time of change is no property of an archive; the modification time is the stable choice.
        self.attrs += wire.ATTR.pack(
            0, size, blocks, atime[0], seconds, seconds, atime[1], nanoseconds, nanoseconds,
            mode, 1, uid, gid, rdev, 4096, 0,
        )  # fmt: skip
        self.data.append(0)
        self.layers.append(0)
        return len(self.data) - 1

    def _set_xattrs(self, inode: int, xattrs: dict[bytes, bytes]) -> None:
        named = {shown(name): value for name, value in sorted(xattrs.items())}
        kept = {name: value for name, value in named.items() if name is not None}
        if kept:
            packed = pack_xattrs(kept)
            self.xattrs[inode] = self._packed.setdefault(packed, packed)


def pack_xattrs(xattrs: dict[bytes, bytes]) -> bytes:
    """Extended attributes as an index holds them; a name of length 0 ends them. Padded to 8 bytes."""
    parts = []
    for name, value in xattrs.items():
        body = name + value
        parts.append(XATTR.pack(len(name), len(value)) + body + b"\0" * (-len(body) % 4))
    parts.append(XATTR.pack(0, 0))
    packed = b"".join(parts)
    return packed + b"\0" * (-len(packed) % 8)
