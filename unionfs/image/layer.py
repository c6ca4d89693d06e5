"""Reading the members of a layer tar: ustar, PAX and GNU archives.

Not `tarfile`: it takes a damaged header in the middle of an archive for its end, reads extended headers of
any size into memory and recurses for a chain of them; and it is half as fast (docs/index-format.md). What
differs between readers is decided as Go's archive/tar does, which the other container tools use: links,
devices and directories carry no data, whatever size they state; a GNU long name goes before the one of an extended
header; and global extended headers do not apply.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from unionfs.image import header, pax, sparse
from unionfs.image.errors import CutError, CutShort, LayerError, show
from unionfs.image.header import BLOCK

_ZEROS = bytes(BLOCK)
_MAX_TARGET = 4095  # PATH_MAX without its zero byte

_KINDS = {
    b"0": stat.S_IFREG,
    b"\0": stat.S_IFREG,
    b"7": stat.S_IFREG,
    b"S": stat.S_IFREG,
    b"1": 0,
    b"2": stat.S_IFLNK,
    b"3": stat.S_IFCHR,
    b"4": stat.S_IFBLK,
    b"5": stat.S_IFDIR,
    b"D": stat.S_IFDIR,  # of a GNU incremental archive: its content is the list of its names
    b"6": stat.S_IFIFO,
}

_UNREADABLE = {b"M": "the rest of a file that begins in another volume; join the volumes of the archive first"}

Time = tuple[int, int]
"""Seconds and nanoseconds."""


class Member(NamedTuple):
    """One member. Names are raw; a hard link has mode 0 and only its two names count."""

    name: bytes
    link: bytes  # target of a symlink or hard link
    mode: int  # with the type bits
    uid: int
    gid: int
    rdev: int  # as `wire.encode_rdev`
    size: int
    mtime: Time
    atime: Time
    data: int  # offset of the content in the tar
    xattrs: dict[bytes, bytes] | None
    extents: sparse.Extents | None  # of a sparse file
    end: int  # offset of the next header


class _Extended:
    """What extended headers and GNU long names say of the next member."""

    __slots__ = ("link", "name", "records", "values")

    def __init__(self) -> None:
        self.name = b""
        self.link = b""
        self.records: list[tuple[bytes, bytes]] = []
        self.values: dict[bytes, bytes] = {}

    def add(self, kind: bytes, data: bytes) -> None:
        """Take the content of a header of type x, L or K. A later one of a type replaces all of the one before."""
        if kind == b"L":
            self.name = header.string(data)
        elif kind == b"K":
            self.link = header.string(data)
        else:
            self.records = list(pax.records(data))
            # An empty value says that there is no such record (POSIX).
            last = dict(self.records)
            self.values = {key: value for key, value in last.items() if value or key.startswith(pax.XATTR)}


class LayerReader:
    """Iterates over the members of the uncompressed tar `fd`, which stays the caller's.

    Every flaw is a `LayerError` with `label` and the member's name.
    """

    def __init__(self, fd: int, label: str) -> None:
        self._fd = fd
        self._label = label
        self._size = os.fstat(fd).st_size
        self.complete = False
        """Once all members are read: whether the archive ended with a block of zeros, or merely ended."""

    def error(self, name: bytes, reason: str) -> LayerError:
        """A LayerError about one member of this layer."""
        return LayerError(f"layer {self._label}: member {show(name)}: {reason}")

    def __iter__(self) -> Iterator[Member]:
        offset = 0
        extended: _Extended | None = None
        while True:
            block = os.pread(self._fd, BLOCK, offset)
            if len(block) < BLOCK or block == _ZEROS:
                return self._end(block, offset, extended)
            try:
                fields = header.FIELDS.unpack(block)
                kind = fields[7]
                header.check_sum(block, fields[6])
                if kind in b"xXgLK":  # X: what Solaris calls x
                    data = self._extension(offset, header.size_of(fields[4]))
                    offset += BLOCK + header.padded(len(data))
                    if kind != b"g":
                        extended = extended or _Extended()
                        extended.add(kind, data)
                    continue
                if kind == b"V":  # GNU volume label
                    offset += BLOCK + header.padded(header.size_of(fields[4]))
                    continue
                member = self._member(block, fields, offset, extended)
            except ValueError as error:
                name = extended.name if extended and extended.name else header.string(block[:100])
                failed = self.error(name, f"{error} (at byte {offset})")
                raise (CutError(str(failed)) if isinstance(error, CutShort) else failed) from None
            extended = None
            yield member
            offset = member.end

    def _end(self, block: bytes, offset: int, extended: _Extended | None) -> None:
        """An archive ends with two blocks of zeros; many writers leave one or both out."""
        if extended is not None:
            raise CutError(f"layer {self._label}: cut after an extended header, at byte {offset}")
        if 0 < len(block) < BLOCK:
            raise CutError(f"layer {self._label}: cut in the header at byte {offset}")
        if len(block) == BLOCK and os.pread(self._fd, BLOCK, offset + BLOCK).strip(b"\0"):
            raise LayerError(f"layer {self._label}: a block of zeros amid the members, at byte {offset}")
        self.complete = len(block) == BLOCK

    def _extension(self, offset: int, size: int) -> bytes:
        if size > pax.MAX_HEADER:
            raise ValueError(f"extended header of {size} bytes, the limit is {pax.MAX_HEADER}")
        data = os.pread(self._fd, size, offset + BLOCK)
        if len(data) < size:
            raise CutShort("the archive is cut in an extended header")
        return data

    def _member(self, block: bytes, fields: tuple[bytes, ...], offset: int, extended: _Extended | None) -> Member:
        kind = fields[7]
        type_ = _KINDS.get(kind)
        if type_ is None:
            raise ValueError(_UNREADABLE.get(kind) or f"unknown type {kind!r}")
        name, link = _names(fields, extended)
        uid, gid, size, mtime, atime = _numbers(fields, extended)
        if kind == b"\0" and name.endswith(b"/"):  # how archives before ustar say directory
            type_ = stat.S_IFDIR
        elif type_ == stat.S_IFLNK and not 0 < len(link) <= _MAX_TARGET:
            raise ValueError(f"symbolic link with a target of {len(link)} bytes")
        data = end = offset + BLOCK
        extents = None
        if kind == b"D":
            end, size = end + size, 0
        elif type_ != stat.S_IFREG:
            size = 0
        else:
            end += size
            if kind == b"S" or (extended and extended.values):
                size, data, end, extents = self._content(block, size, data, extended)
            if end > self._size:  # a last block that is not filled up is common: `umoci insert` writes so
                raise CutShort("the archive is cut in its content")
        is_device = type_ in (stat.S_IFCHR, stat.S_IFBLK)
        return Member(
            name,
            link,
            type_ and type_ | header.number(fields[1], negative=True) & 0o7777,
            uid,
            gid,
            header.device(fields) if is_device else 0,
            size,
            mtime,
            atime,
            data,
            pax.xattrs(extended.values) if extended and extended.values else None,
            extents,
            header.padded(end),
        )

    def _content(
        self, block: bytes, stored: int, data: int, extended: _Extended | None
    ) -> tuple[int, int, int, sparse.Extents | None]:
        """(size, offset of the bytes in the tar, where they end, extents) of a member that may be sparse."""
        end = data + stored
        values = extended.values if extended else {}
        if not sparse.is_sparse(block[156:157], values):
            return stored, data, end, None
        if block[156:157] == b"S":
            if block[257:265] != header.GNU:
                raise ValueError("a sparse file of a format that only star reads")
            size, data, extents = sparse.old(block, self._map_block, data, stored)
            return size, data, data + stored, extents
        if values.get(b"GNU.sparse.major") == b"1":
            size, data, extents = sparse.in_data(values, self._map_block, data, stored)
        else:
            records = extended.records if extended else []
            size, data, extents = sparse.in_header(records, values, data, stored)
        return size, data, end, extents

    def _map_block(self, offset: int) -> bytes:
        block = os.pread(self._fd, BLOCK, offset)
        if len(block) < BLOCK:
            raise CutShort("the archive is cut in a sparse map")
        return block


def _names(fields: tuple[bytes, ...], extended: _Extended | None) -> tuple[bytes, bytes]:
    """The name and link target of a member."""
    name, link = header.name(fields), header.string(fields[8])
    if extended is not None:
        values = extended.values
        name = values.get(b"GNU.sparse.name") or extended.name or values.get(b"path") or name
        link = extended.link or values.get(b"linkpath") or link
        if b"\0" in name or b"\0" in link:
            raise ValueError("a zero byte in a name")
    return name, link


def _numbers(fields: tuple[bytes, ...], extended: _Extended | None) -> tuple[int, int, int, Time, Time]:
    """Owner, group, stored bytes, time of modification and of access."""
    uid, gid = header.number(fields[2], negative=True), header.number(fields[3], negative=True)
    size = header.size_of(fields[4])
    mtime = pax.check_time(header.number(fields[5], negative=True)), 0
    accessed = header.access_time(fields)
    values = extended.values if extended is not None else None
    if values:
        uid = pax.integer(values[b"uid"], "uid") if b"uid" in values else uid
        gid = pax.integer(values[b"gid"], "gid") if b"gid" in values else gid
        size = header.check_size(pax.decimal(values[b"size"], "size")) if b"size" in values else size
        mtime = pax.timestamp(values[b"mtime"]) if b"mtime" in values else mtime
    atime = mtime if accessed is None else (pax.check_time(accessed), 0)
    if values and b"atime" in values:
        atime = pax.timestamp(values[b"atime"])
    return header.owner(uid), header.owner(gid), size, mtime, atime
