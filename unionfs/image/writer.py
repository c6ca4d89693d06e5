"""Numbers the inodes of a merged tree and writes the index.

Rows are numbered breadth first: the root is 1, then each directory in the order of the rows gives the next
numbers to its names in bytewise order; a hard-linked file has its number from the first of its names. So rows
depend on the merged content alone, and an index that is made again has the same.
"""

from __future__ import annotations

import stat
import struct
from array import array
from typing import BinaryIO

from unionfs.fuse import wire
from unionfs.image.errors import LayerError
from unionfs.image.format import (
    ATTR_SIZE,
    EXTENT,
    LAYER_SIZE,
    LINK,
    MAX_LISTING,
    RECORD,
    ROW_SIZE,
    ROW_TAIL,
    SPARSE,
    Header,
)
from unionfs.image.inodes import Inodes

_PADDED = [b"\0" * (-length % 8) for length in range(256)]
_INO = struct.Struct("<Q")
_SIZE = struct.Struct("<8xQ")
_NLINK = struct.Struct("<I")
_OWNER = struct.Struct("<II")
_NLINK_AT = 64
_OWNER_AT = 68
_MODE_HIGH_AT = 61
"""Byte of the mode that holds the type: shifted right by 4 it is the d_type."""


def write_index(out: BinaryIO, inodes: Inodes, root: int, layer_sizes: list[int]) -> None:
    """Write the index of the tree `root` to `out`, a seekable file at its beginning. Changes `inodes`."""
    _IndexWriter(out, inodes, root).write(layer_sizes)


class _IndexWriter:
    def __init__(self, out: BinaryIO, inodes: Inodes, root: int) -> None:
        self._out = out
        self._inodes = inodes
        self._order = array("I", [0, root])  # inode by row
        self._rows = array("I", bytes(4 * len(inodes.data)))  # row by inode
        self._rows[root] = 1
        self._parents = array("I", [0, 1])  # by row
        self._more_names: dict[int, list[tuple[int, int]]] = {}  # by row, of hard-linked files
        self._at = 0

    def write(self, layer_sizes: list[int]) -> None:
        self._number()
        count = len(self._order)
        self._records = array("I", bytes(4 * count))  # place of the first name in its listing, by row
        self._places = array("Q", bytes(8 * count))  # by row: listing, target or extents
        self._lengths = array("Q", bytes(8 * count))
        self._at = count * ROW_SIZE
        self._out.seek(self._at)
        self._write_listings()
        self._write_strings()
        xattrs = self._write_xattrs()
        links = self._at
        first_link = self._write_links()
        sizes = self._append(b"".join(LAYER_SIZE.pack(size) for size in layer_sizes))
        length = self._at
        self._out.seek(ROW_SIZE)
        total, uid, gid = self._write_rows(xattrs, first_link)
        header = Header(count - 1, len(layer_sizes), length, total, uid, gid, sizes, links)
        self._out.seek(0)
        self._out.write(header.pack())
        self._out.seek(length)

    def _number(self) -> None:
        """Give out the rows; count links, and put each directory's names in order."""
        children, attrs = self._inodes.children, self._inodes.attrs
        order, rows, parents = self._order, self._rows, self._parents
        _INO.pack_into(attrs, order[1] * ATTR_SIZE, 1)
        row = 0
        while (row := row + 1) < len(order):
            names = children.get(order[row])
            if names is None:
                continue
            children[order[row]] = names = dict(sorted(names.items()))
            # As on a disk: its name, its ".", and the ".." of each directory in it.
            below = sum(map(children.__contains__, names.values()))
            _NLINK.pack_into(attrs, order[row] * ATTR_SIZE + _NLINK_AT, 2 + below)
            for inode in names.values():
                if rows[inode]:
                    at = inode * ATTR_SIZE + _NLINK_AT
                    _NLINK.pack_into(attrs, at, _NLINK.unpack_from(attrs, at)[0] + 1)
                    continue
                rows[inode] = number = len(order)
                order.append(inode)
                parents.append(row)
                _INO.pack_into(attrs, inode * ATTR_SIZE, number)

    def _write_listings(self) -> None:
        """Per directory its READDIRPLUS records, then the name table: u32 offsets of the records."""
        children = self._inodes.children
        for row, inode in enumerate(self._order):
            if inode in children:
                listing, table = self._listing(row, children[inode])
                self._places[row] = self._append(listing)
                self._lengths[row] = len(listing)
                self._append(table.tobytes())

    def _listing(self, row: int, names: dict[bytes, int]) -> tuple[bytes, array[int]]:
        attrs, rows, records = self._inodes.attrs, self._rows, self._records
        parent = self._parents[row]
        zeros, forever = bytes(ATTR_SIZE), wire.FOREVER
        dots = RECORD.size + 8
        parts = [
            RECORD.pack(0, 0, 0, 0, 0, 0, zeros, row, dots, 1, 4) + b".".ljust(8, b"\0"),
            RECORD.pack(0, 0, 0, 0, 0, 0, zeros, parent, 2 * dots, 2, 4) + b"..".ljust(8, b"\0"),
        ]
        at = 2 * dots
        table = array("I")
        for name, inode in names.items():
            if at > MAX_LISTING:
                raise LayerError(f"a directory of {len(names)} names is too large for an index")
            table.append(at)
            node = rows[inode]
            if self._parents[node] == row and not records[node]:
                records[node] = at
            else:
                self._more_names.setdefault(node, []).append((row, at))
            place = inode * ATTR_SIZE
            attr = attrs[place : place + ATTR_SIZE]
            length = len(name)
            pad = _PADDED[length]
            at += RECORD.size + length + len(pad)
            kind = attr[_MODE_HIGH_AT] >> 4
            parts.append(RECORD.pack(node, 0, forever, forever, 0, 0, attr, node, at, length, kind))
            parts.append(name)
            parts.append(pad)
        return b"".join(parts), table

    def _write_strings(self) -> None:
        """Targets of symbolic links and extents of sparse files."""
        for inode, target in self._inodes.targets.items():
            if row := self._rows[inode]:
                self._places[row] = self._append(target)
                self._lengths[row] = len(target)
        for inode, extents in self._inodes.extents.items():
            if row := self._rows[inode]:
                self._places[row] = self._append(b"".join(EXTENT.pack(*extent) for extent in extents))
                self._lengths[row] = len(extents)

    def _write_xattrs(self) -> dict[bytes, int]:
        """Each distinct set of extended attributes once; returns their places divided by 8."""
        written: dict[bytes, int] = {}
        for inode, packed in self._inodes.xattrs.items():
            if self._rows[inode] and packed not in written:
                written[packed] = self._append(packed) // 8
        return written

    def _write_links(self) -> dict[int, int]:
        """The further names of hard-linked files; returns the number of the first, by row."""
        first: dict[int, int] = {}
        parts: list[bytes] = []
        for row, names in self._more_names.items():
            first[row] = len(parts)
            parts += [LINK.pack(*name) for name in names]
        self._append(b"".join(parts))
        return first

    def _write_rows(self, xattrs: dict[bytes, int], first_link: dict[int, int]) -> tuple[int, int, int]:
        """All rows from 1 on; returns the sum of file sizes and the highest uid and gid."""
        inodes = self._inodes
        total = max_uid = max_gid = 0
        for row, inode in enumerate(self._order[1:], 1):
            attr = inodes.attrs[inode * ATTR_SIZE : (inode + 1) * ATTR_SIZE]
            uid, gid = _OWNER.unpack_from(attr, _OWNER_AT)
            max_uid, max_gid = max(max_uid, uid), max(max_gid, gid)
            kind = attr[_MODE_HIGH_AT] << 8 & 0o170000
            data, length, layer, flags = self._places[row], self._lengths[row], 0, 0
            if kind == stat.S_IFREG:
                layer = inodes.layers[inode]
                total += _SIZE.unpack_from(attr)[0]
                if inode in inodes.extents:
                    flags = SPARSE
                else:
                    data = inodes.data[inode]
            elif kind == stat.S_IFDIR:
                layer = len(inodes.children[inode])
            packed = inodes.xattrs.get(inode)
            tail = ROW_TAIL.pack(
                data,
                length,
                layer,
                flags,
                self._parents[row],
                self._records[row],
                first_link.get(row, 0),
                xattrs[packed] if packed else 0,
            )
            self._out.write(attr + tail)
        return min(total, (1 << 64) - 1), max_uid, max_gid

    def _append(self, data: bytes) -> int:
        """Write `data`, padded to 8 bytes; returns where it begins."""
        at = self._at
        self._out.write(data)
        self._out.write(_PADDED[len(data) % 8 or 8])
        self._at = at + len(data) + -len(data) % 8
        return at
