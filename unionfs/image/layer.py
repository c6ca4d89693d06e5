"""Reading the members of a layer tar: ustar, PAX and GNU archives.

Not `tarfile`: it takes a damaged header in the middle of an archive for its end, reads extended headers of
any size into memory and recurses for a chain of them; and it is half as fast (docs/index-format.md). What differs between readers in practice is decided as Go's archive/tar does, which the other container tools
use: links, devices and directories carry no data, and global extended headers do not apply.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from typing import NamedTuple

from unionfs.fuse.wire import encode_rdev
from unionfs.image import pax
from unionfs.image.errors import LayerError, show

BLOCK = 512
_ZEROS = bytes(BLOCK)
_HEADER = struct.Struct("<100s8s8s8s12s12s8sc100s8s64x8s8s155s12x")
_CHECKSUM_SPACES = 8 * 0x20
_MAX_SIZE = (1 << 63) - 1
_MAX_ID = (1 << 32) - 2  # the highest is "no owner" to chown(2)

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
    b"6": stat.S_IFIFO,
}


class Member(NamedTuple):
    """One member. Names are raw; a hard link has mode 0 and only its two names count."""

    name: bytes
    link: bytes  # target of a symlink or hard link
    mode: int  # with the type bits
    uid: int
    gid: int
    rdev: int  # as `wire.encode_rdev`
    size: int
    mtime: tuple[int, int]  # seconds, nanoseconds
    atime: tuple[int, int]
    data: int  # offset of the content in the tar
    xattrs: dict[bytes, bytes] | None
    extents: list[tuple[int, int, int]] | None  # of a sparse file: see `pax.extents`
    end: int  # offset of the next header


class _Extended:
    """What extended headers and GNU long names say of the next member."""

    __slots__ = ("link", "name", "records", "values")

    def __init__(self) -> None:
        self.name: bytes | None = None
        self.link: bytes | None = None
        self.records: list[tuple[bytes, bytes]] = []
        self.values: dict[bytes, bytes] = {}


class LayerReader:
    """Iterates over the members of the uncompressed tar `fd`, which stays the caller's.

    Every flaw is a `LayerError` with `label` and the member's name.
    """

    def __init__(self, fd: int, label: str) -> None:
        self._fd = fd
        self._label = label
        self._size = os.fstat(fd).st_size

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
                fields = _HEADER.unpack(block)
                kind = fields[7]
                _check_sum(block, fields[6])
                if kind in b"xgLK":
                    size = _size(fields[4])
                    extended = self._extend(extended, kind, self._extension(offset, size))
                    offset += BLOCK + _padded(size)
                    continue
                if kind == b"V":  # GNU volume label
                    offset += BLOCK
                    continue
                member = self._member(block, fields, offset, extended)
            except ValueError as error:
                name = extended.name if extended and extended.name else block[:100].split(b"\0", 1)[0]
                raise self.error(name, f"{error} (at byte {offset})") from None
            extended = None
            yield member
            offset = member.end

    def _end(self, block: bytes, offset: int, extended: _Extended | None) -> None:
        """An archive ends with two blocks of zeros; many writers leave one or both out."""
        if extended is not None:
            raise LayerError(f"layer {self._label}: ends after an extended header: the archive is cut")
        if block and len(block) < BLOCK and block.strip(b"\0"):
            raise LayerError(f"layer {self._label}: cut in the header at byte {offset}")
        if len(block) == BLOCK:
            following = os.pread(self._fd, BLOCK, offset + BLOCK)
            if following.strip(b"\0"):
                raise LayerError(f"layer {self._label}: a block of zeros amid the members at byte {offset}")

    def _extension(self, offset: int, size: int) -> bytes:
        if size > pax.MAX_HEADER:
            raise ValueError(f"extended header of {size} bytes, the limit is {pax.MAX_HEADER}")
        data = os.pread(self._fd, size, offset + BLOCK)
        if len(data) < size:
            raise ValueError("the archive is cut in an extended header")
        return data

    def _extend(self, extended: _Extended | None, kind: bytes, data: bytes) -> _Extended | None:
        if kind == b"g":
            return extended
        extended = extended or _Extended()
        if kind == b"L":
            extended.name = data.split(b"\0", 1)[0]
        elif kind == b"K":
            extended.link = data.split(b"\0", 1)[0]
        else:
            extended.records = list(pax.records(data))
            extended.values = values = dict(extended.records)
            # An empty value means that the record is not there (POSIX), also after an earlier one.
            extended.name = values.get(b"GNU.sparse.name") or values.get(b"path") or extended.name
            extended.link = values.get(b"linkpath") or extended.link
        return extended

    def _member(
        self, block: bytes, fields: tuple[bytes, ...], offset: int, extended: _Extended | None
    ) -> Member:
        name, mode, uid, gid, size, mtime, _, kind, link, magic, major, minor, prefix = fields
        type_ = _KINDS.get(kind)
        if type_ is None:
            raise ValueError(f"unknown type {kind!r}")
        name = name.split(b"\0", 1)[0]
        link = link.split(b"\0", 1)[0]
        if prefix[0] and magic.startswith(b"ustar\0"):
            name = prefix.split(b"\0", 1)[0] + b"/" + name
        owner, group, bytes_ = _number(uid), _number(gid), _size(size)
        modified = (pax.check_time(_number(mtime, negative=True)), 0)
        accessed = modified
        xattrs = None
        values: dict[bytes, bytes] = {}
        if extended is not None:
            name = extended.name if extended.name is not None else name
            link = extended.link if extended.link is not None else link
            values = extended.values
            if values:
                owner = _override(values, b"uid", owner)
                group = _override(values, b"gid", group)
                bytes_ = _override(values, b"size", bytes_)
                modified = pax.timestamp(values[b"mtime"]) if values.get(b"mtime") else modified
                accessed = pax.timestamp(values[b"atime"]) if values.get(b"atime") else modified
                xattrs = _xattrs(values)
        if kind == b"\0" and name.endswith(b"/"):  # how archives before ustar say directory
            type_ = stat.S_IFDIR
            if bytes_:
                raise ValueError("a directory with content")
        if b"\0" in name or b"\0" in link:
            raise ValueError("a zero byte in a name")
        if owner > _MAX_ID or group > _MAX_ID:
            raise ValueError(f"owner {owner}:{group} is out of range")
        data, stored, extents = offset + BLOCK, 0, None
        if type_ == stat.S_IFREG:
            if bytes_ > _MAX_SIZE:
                raise ValueError(f"absurd size {bytes_}")
            stored = bytes_
            if kind == b"S" or b"GNU.sparse.major" in values or b"GNU.sparse.size" in values:
                bytes_, data, extents = self._sparse(block, data, stored, extended)
                stored = stored if kind != b"S" else stored + data - offset - BLOCK
            if offset + BLOCK + stored > self._size:
                raise ValueError("the archive is cut in its content")
        elif type_ == stat.S_IFLNK and not 0 < len(link) < 4096:
            raise ValueError(f"symbolic link with a target of {len(link)} bytes")
        rdev = _device(major, minor) if type_ in (stat.S_IFCHR, stat.S_IFBLK) else 0
        return Member(
            name,
            link,
            type_ and type_ | _number(mode) & 0o7777,
            owner,
            group,
            rdev,
            bytes_ if type_ == stat.S_IFREG else 0,
            modified,
            accessed,
            data,
            xattrs,
            extents,
            offset + BLOCK + _padded(stored),
        )

    def _sparse(
        self, block: bytes, data: int, stored: int, extended: _Extended | None
    ) -> tuple[int, int, list[tuple[int, int, int]]]:
        """(size, offset of the stored bytes, extents) of a sparse member in any of the four formats."""
        if block[156:157] == b"S":
            return self._old_sparse(block, data, stored)
        assert extended is not None
        values = extended.values
        if values.get(b"GNU.sparse.major", b"0") != b"1":
            size = pax.decimal(values.get(b"GNU.sparse.size", b""), "sparse size")
            found = pax.extents(pax.map_in_header(extended.records), size, data, stored)
        else:
            size = pax.decimal(values.get(b"GNU.sparse.realsize", b""), "sparse size")
            pairs, used = pax.map_in_data(lambda number: self._block(data + number * BLOCK, data + stored))
            data += used
            found = pax.extents(pairs, size, data, stored - used)
        if size > _MAX_SIZE:
            raise ValueError(f"absurd size {size}")
        return size, data, found

    def _old_sparse(
        self, block: bytes, data: int, stored: int
    ) -> tuple[int, int, list[tuple[int, int, int]]]:
        """The old GNU format: four entries in the header, then blocks of 21 in front of the data."""
        fields, more = block[386:482], block[482]
        size = _size(block[483:495])
        numbers: list[int] = []
        while True:
            for at in range(0, len(fields), 12):
                # An unused entry is all zeros; entries after it say nothing.
                if fields[at : at + 12].strip(b"\0"):
                    numbers.append(_size(fields[at : at + 12]))
            if not more:
                break
            extension = self._block(data, self._size)
            fields, more, data = extension[:504], extension[504], data + BLOCK
            if len(numbers) > 2 * pax.MAX_EXTENTS:
                raise ValueError("malformed sparse map")
        return size, data, pax.extents(pax.pairs_of(numbers), size, data, stored)

    def _block(self, offset: int, end: int) -> bytes:
        block = os.pread(self._fd, BLOCK, offset) if offset < end else b""
        if len(block) < BLOCK:
            raise ValueError("the archive is cut in a sparse map")
        return block


def _padded(size: int) -> int:
    return (size + BLOCK - 1) // BLOCK * BLOCK


def _number(field: bytes, negative: bool = False) -> int:
    """A numeric header field: octal text, or base 256 where the top bit is set (GNU, star)."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big")
        bits = 8 * len(field)
        # The top bit is the mark; the one below it the sign.
        value = value - (1 << bits) if field[0] & 0x40 else value - (1 << (bits - 1))
        if value < 0 and not negative:
            raise ValueError(f"negative number {value}")
        return value
    text = field.strip(b" \0")
    if not text:
        return 0
    if not text.isdigit():
        raise ValueError(f"malformed number {text!r}")
    return int(text, 8)


def _size(field: bytes) -> int:
    value = _number(field)
    if value > _MAX_SIZE:
        raise ValueError(f"absurd size {value}")
    return value


def _override(values: dict[bytes, bytes], key: bytes, value: int) -> int:
    text = values.get(key)
    return pax.decimal(text, key.decode()) if text else value


def _check_sum(block: bytes, field: bytes) -> None:
    """The sum of the header's bytes with its own field as spaces; old writers summed signed bytes."""
    stated = _number(field)
    total = sum(block) - sum(field) + _CHECKSUM_SPACES
    if total != stated:
        high = sum(1 for byte in block if byte > 127) - sum(1 for byte in field if byte > 127)
        if total - 256 * high != stated:
            raise ValueError("damaged header: its checksum does not match")


def _device(major: bytes, minor: bytes) -> int:
    numbers = _number(major), _number(minor)
    if numbers[0] >= 1 << 12 or numbers[1] >= 1 << 20:
        raise ValueError(f"device number {numbers[0]}:{numbers[1]} is out of range")
    return encode_rdev(*numbers)


def _xattrs(values: dict[bytes, bytes]) -> dict[bytes, bytes] | None:
    found = {}
    for key, value in values.items():
        if key.startswith(pax.XATTR_PREFIX):
            name = key[len(pax.XATTR_PREFIX) :]
            if not 0 < len(name) < 256 or b"\0" in name:
                raise ValueError(f"malformed extended attribute name {show(name)}")
            if len(value) > 65536:
                raise ValueError(f"extended attribute {show(name)} of {len(value)} bytes, the limit is 65536")
            found[name] = value
    return found or None
