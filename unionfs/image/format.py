"""The compiled image's file format: see docs/index-format.md for the drawing.

Everything is little endian and 8-byte aligned where it holds 64-bit fields. Row 0 is the header, so row `n`
starts at byte ``n * ROW_SIZE`` of the file.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from unionfs.fuse import wire

MAGIC = b"ufsindex"
VERSION = 3

ROW_TAIL = struct.Struct("<QQIIIIII")
"""What follows the ``struct fuse_attr`` in a row: the fields of `Place`."""

ATTR_SIZE = wire.ATTR.size
ROW_SIZE = ATTR_SIZE + ROW_TAIL.size

EXTENT = struct.Struct("<QQQ")  # offset in the file, length, offset in the layer tar
LINK = struct.Struct("<II")  # row of the directory, offset of the record in its listing
XATTR = struct.Struct("<II")  # length of name, length of value; then both, padded to 4
LAYER_SIZE = struct.Struct("<Q")

HEADER = struct.Struct("<8sIIQQQIIQQ")

RECORD = struct.Struct("<QQQQII88sQQII")
"""``struct fuse_direntplus`` without its name: entry_out, attr, dirent head (see `unionfs.fuse.wire`)."""

NAME_LENGTH = wire.ENTRY_SIZE + 16  # offset of dirent.namelen in a record
TYPE = NAME_LENGTH + 4
NAME = RECORD.size
DOTS_SIZE = 2 * (RECORD.size + 8)  # "." and ".." with their names padded to 8

MAX_LISTING = (1 << 32) - 1  # the name table holds 32-bit offsets

SPARSE = 1 << 0
"""Row flag: `data` and `length` are the place and number of the extents."""


class BadIndex(ValueError):
    """The index cannot be used with these layers: cut, of another version, made from others. Rebuild it."""


class Place(NamedTuple):
    """The end of a row: where the content and the names of an inode are.

    kind       | data                   | length            | layer
    -----------|------------------------|-------------------|-----------------
    regular    | offset in layer tar    | 0                 | layer, 0 lowest
    sparse     | offset of extents      | number of extents | layer, 0 lowest
    directory  | offset of listing      | bytes of listing  | number of names
    symlink    | offset of target       | bytes of target   | 0
    """

    data: int
    length: int
    layer: int
    flags: int
    parent: int  # row of the directory of the first name
    record: int  # offset of that name's record in the directory's listing
    links: int  # number of its first further name in the links section, when the link count is above 1
    xattrs: int  # offset of the attributes divided by 8, or 0


class Header(NamedTuple):
    """Row 0. Offsets and lengths in bytes."""

    rows: int  # the last row number
    layers: int
    length: int  # of the whole file
    total_bytes: int  # sum of the sizes of all regular files
    max_uid: int
    max_gid: int
    layer_sizes: int  # offset of the sizes of the layer tars, a u64 each
    links: int  # offset of the further names of hard-linked files

    def pack(self) -> bytes:
        """The first `ROW_SIZE` bytes of an index."""
        head = HEADER.pack(
            MAGIC,
            VERSION,
            self.layers,
            self.rows,
            self.length,
            self.total_bytes,
            self.max_uid,
            self.max_gid,
            self.layer_sizes,
            self.links,
        )
        return head.ljust(ROW_SIZE, b"\0")

    @classmethod
    def unpack(cls, data: bytes, file_length: int) -> Header:
        """Read and check a header; BadIndex says what is wrong with it."""
        if len(data) < ROW_SIZE or data[:8] != MAGIC:
            raise BadIndex("not a compiled image")
        _, version, layers, rows, length, total, uid, gid, sizes, links = HEADER.unpack_from(data)
        if version != VERSION:
            raise BadIndex(f"format version {version}, this program reads {VERSION}")
        if length != file_length:
            raise BadIndex(f"{file_length} bytes long where its header says {length}")
        in_order = (rows + 1) * ROW_SIZE <= links <= sizes <= length - layers * LAYER_SIZE.size
        if rows < 1 or length % 8 or not in_order:
            raise BadIndex("its sections lie outside of the file")
        return cls(rows, layers, length, total, uid, gid, sizes, links)
