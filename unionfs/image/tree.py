"""A tree over layer tars that are not unpacked: an index, mapped into memory."""

from __future__ import annotations

import errno
import itertools
import mmap
import os
import struct
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from unionfs import whiteout
from unionfs.fuse import wire
from unionfs.image.format import (
    ATTR_SIZE,
    DOTS_SIZE,
    EXTENT,
    LAYER_SIZE,
    LINK,
    NAME,
    NAME_LENGTH,
    ROW_SIZE,
    ROW_TAIL,
    SPARSE,
    TYPE,
    XATTR,
    BadIndex,
    Header,
    Place,
)
from unionfs.tree import Entry, Run, new_generation

if TYPE_CHECKING:  # not on the way of every start
    from pathlib import Path
    from types import TracebackType

_SIZE = struct.Struct("<Q")
_MASK = (1 << 64) - 1
_SIZE_AT = 8  # in fuse_attr
_MODE_HIGH_AT = 61
_NLINK_AT = 64
_DIRECTORY = 4  # DT_DIR


class CompiledImage:
    """`unionfs.tree.Tree` over an index of `unionfs.image.compiler` and the layer tars, the lowest first.

    Opening reads the header alone. Raises OSError, and BadIndex where the index is cut, of another version or
    does not belong to these layers; it is derived data, so the answer is to compile it again.
    """

    stable = True
    timeout: float = wire.FOREVER

    def __init__(self, index: str | Path, layers: Sequence[str | Path]) -> None:
        if sys.byteorder != "little":
            raise BadIndex(f"{index}: an index is little endian, this machine is not")
        self._layers: list[int] = []
        self._fd = os.open(index, os.O_RDONLY | os.O_CLOEXEC)
        try:
            length = os.fstat(self._fd).st_size
            self._header = Header.unpack(os.pread(self._fd, ROW_SIZE, 0), length)
            self._map = mmap.mmap(self._fd, length, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED)
            self.generation = new_generation()
            self._ids = itertools.count(self._header.rows + 1)
            self._words = memoryview(self._map).cast("I")
            self._open_layers([str(layer) for layer in layers])
        except BadIndex as error:
            self._close_descriptors()
            raise BadIndex(f"index {index}: {error}; it must be compiled again") from None
        except BaseException:
            self._close_descriptors()
            raise

    def _open_layers(self, layers: list[str]) -> None:
        if len(layers) != self._header.layers:
            raise BadIndex(f"made from {self._header.layers} layers, not {len(layers)}")
        for number, layer in enumerate(layers):
            fd = os.open(layer, os.O_RDONLY | os.O_CLOEXEC)
            self._layers.append(fd)
            size = os.fstat(fd).st_size
            at = self._header.layer_sizes + number * LAYER_SIZE.size
            (stated,) = LAYER_SIZE.unpack_from(self._map, at)
            if size != stated:
                raise BadIndex(f"layer {layer} has {size} bytes, not the {stated} it was made from")

    @property
    def rows(self) -> int:
        """The number of inodes; the highest node id."""
        return self._header.rows

    @property
    def total_bytes(self) -> int:
        """The sum of the sizes of all regular files."""
        return self._header.total_bytes

    @property
    def max_uid(self) -> int:
        """The highest owner of any inode: with an id map that covers it, records need no rewriting."""
        return self._header.max_uid

    @property
    def max_gid(self) -> int:
        """The highest group of any inode."""
        return self._header.max_gid

    def lookup(self, parent: int, name: bytes) -> int:
        """The row of `name` in directory `parent`, or 0."""
        record = self._record(parent, name)
        return self._words[record >> 2] if record else 0

    def contains(self, parent: int, name: bytes) -> bool:
        """Whether directory `parent` has `name`."""
        return self._record(parent, name) != 0

    def entry(self, parent: int, name: bytes) -> bytes | None:
        """The 128 bytes of ``struct fuse_entry_out`` of `name`, or None where there is none."""
        record = self._record(parent, name)
        return self._map[record : record + wire.ENTRY_SIZE] if record else None

    def attr(self, node: int) -> bytes:
        """The row's ``struct fuse_attr``."""
        at = node * ROW_SIZE
        return self._map[at : at + ATTR_SIZE]

    def entries(self, node: int, cookie: int = 0) -> Iterator[Entry]:
        """The names of `node` in bytewise order, from the first whose record begins at `cookie` or after."""
        listing, length, count = self._directory(node)
        table = (listing + length) >> 2
        view, words = self._map, self._words
        for slot in range(bisect_left(words, cookie, table, table + count), table + count):
            at = listing + words[slot]
            size = words[(at + NAME_LENGTH) >> 2]
            name = view[at + NAME : at + NAME + size]
            following = words[slot] + NAME + size + -size % 8
            yield Entry(whiteout.stored(name), words[at >> 2], words[(at + TYPE) >> 2], following)

    def ahead(self) -> bool:
        return False  # everything is ready

    def listing(self, node: int, cookie: int, size: int) -> bytes:
        """A slice of the READDIRPLUS records of `node`. The last may be cut: the kernel reads whole ones.

        Any number may come as a cookie, by seekdir(3). One that is no record's goes to the next record, since
        within one, a long name could pass for a record of somebody's making.
        """
        listing, length, count = self._directory(node)
        if cookie < DOTS_SIZE:
            start = min(-(-cookie // (DOTS_SIZE // 2)) * (DOTS_SIZE // 2), DOTS_SIZE)
        else:
            table = (listing + length) >> 2
            slot = bisect_left(self._words, cookie, table, table + count)
            start = self._words[slot] if slot < table + count else length
        return self._map[listing + start : listing + min(start + size, length)]

    def boundless(self, node: int) -> bool:
        return False

    holds_mounts = False

    def give_up_mounts(self) -> None:
        """Nothing of an image is mounted elsewhere."""

    def has_entries(self, node: int) -> bool:
        """Whether directory `node` has any name in it."""
        return self._directory(node)[2] != 0

    def readlink(self, node: int) -> bytes:
        """The target of a symbolic link."""
        place = self._place(node)
        return self._map[place.data : place.data + place.length]

    def xattrs(self, node: int) -> Mapping[bytes, bytes]:
        """Extended attributes; the marks of layers were left out when the image was compiled."""
        at = self._place(node).xattrs * 8
        found: dict[bytes, bytes] = {}
        while at:
            name_length, value_length = XATTR.unpack_from(self._map, at)
            if not name_length:
                break
            name = at + XATTR.size
            value = name + name_length
            at = value + value_length
            found[self._map[name:value]] = self._map[value:at]
            at += -at % 4
        return found

    def locate(self, node: int, offset: int, size: int) -> Run:
        """The first run of data or hole of a regular file from `offset`, at most `size` long."""
        place = self._place(node)
        (file_size,) = _SIZE.unpack_from(self._map, node * ROW_SIZE + _SIZE_AT)
        size = max(0, min(size, file_size - offset))
        if not place.flags & SPARSE:
            return Run(self._layers[place.layer], place.data + offset, size)
        number = bisect_right(range(place.length), offset, key=lambda at: self._extent(place, at)[0]) - 1
        if number >= 0:
            start, length, data = self._extent(place, number)
            if offset < start + length:
                return Run(self._layers[place.layer], data + offset - start, min(size, start + length - offset))
        end = self._extent(place, number + 1)[0] if number + 1 < place.length else file_size
        return Run(-1, 0, min(size, max(0, end - offset)))

    def seek(self, node: int, offset: int, whence: int) -> int:
        size: int = _SIZE.unpack_from(self._map, node * ROW_SIZE + _SIZE_AT)[0]
        if not 0 <= offset < size:
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
        while offset < size:
            fd, _, length = self.locate(node, offset, size - offset)
            if (fd < 0) == (whence == os.SEEK_HOLE):
                return offset
            offset += length
        if whence == os.SEEK_HOLE:
            return size
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))

    def names(self, node: int) -> list[tuple[int, bytes]]:
        """All names of an inode as (row of the directory, name); of the root none."""
        if node == 1:
            return []
        place = self._place(node)
        found = [self._name(place.parent, place.record)]
        if self._map[node * ROW_SIZE + _MODE_HIGH_AT] >> 4 == _DIRECTORY:
            return found  # its links are no names
        nlink = self._words[(node * ROW_SIZE + _NLINK_AT) >> 2]
        at = self._header.links + place.links * LINK.size
        for _ in range(nlink - 1):
            found.append(self._name(*LINK.unpack_from(self._map, at)))
            at += LINK.size
        return found

    def foreign_ino(self, device: int, ino: int) -> int:
        """Numbers of the upper follow the rows. An upper is one file system, so `device` adds nothing.

        Only numbers within `rows` of 2**64, which no file system gives out, would wrap onto rows.
        """
        return (self._header.rows + ino) & _MASK

    def new_id(self) -> int:
        """Above the rows."""
        return next(self._ids)

    def owns(self, node: int) -> bool:
        """Whether it is a row."""
        return 1 <= node <= self._header.rows

    def remember(self, node: int) -> None:
        """Rows need no counting."""

    def forget(self, node: int, count: int) -> None:
        """Rows need no counting."""

    def give_up(self) -> None:
        """The layers are wanted at any time."""

    def statvfs(self) -> os.statvfs_result:
        """A full file system of the image's size, in the block size of the one that holds the index."""
        host = os.fstatvfs(self._fd)
        block = host.f_frsize
        blocks = -(-self._header.total_bytes // block)
        flags = host.f_flag | os.ST_RDONLY
        return os.statvfs_result((host.f_bsize, block, blocks, 0, 0, self._header.rows, 0, 0, flags, 255, host.f_fsid))

    def close(self) -> None:
        """Release the mapping and all descriptors."""
        self._close_descriptors()

    def __enter__(self) -> CompiledImage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _close_descriptors(self) -> None:
        if hasattr(self, "_words"):
            self._words.release()
        if hasattr(self, "_map"):
            self._map.close()
        for fd in [*self._layers, self._fd]:
            if fd >= 0:
                os.close(fd)
        self._layers.clear()
        self._fd = -1

    def _place(self, node: int) -> Place:
        return Place._make(ROW_TAIL.unpack_from(self._map, node * ROW_SIZE + ATTR_SIZE))

    def _directory(self, node: int) -> tuple[int, int, int]:
        """(offset of the listing, its bytes, number of names); the name table follows the listing."""
        at = node * ROW_SIZE
        if self._map[at + _MODE_HIGH_AT] >> 4 != _DIRECTORY:
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return ROW_TAIL.unpack_from(self._map, at + ATTR_SIZE)[:3]

    def _record(self, parent: int, name: bytes) -> int:
        """Where the record of a name is in the file, or 0: a binary search in the name table of names as they show."""
        name = whiteout.shown(name)
        listing, length, count = self._directory(parent)
        view, words = self._map, self._words
        low = (listing + length) >> 2
        high = low + count
        while low < high:
            middle = (low + high) >> 1
            record = listing + words[middle]
            start = record + NAME
            found = view[start : start + words[(record + NAME_LENGTH) >> 2]]
            if found < name:
                low = middle + 1
            elif found == name:
                return record
            else:
                high = middle
        return 0

    def _name(self, parent: int, record: int) -> tuple[int, bytes]:
        at = self._directory(parent)[0] + record
        return parent, whiteout.stored(self._map[at + NAME : at + NAME + self._words[(at + NAME_LENGTH) >> 2]])

    def _extent(self, place: Place, number: int) -> tuple[int, int, int]:
        return EXTENT.unpack_from(self._map, place.data + number * EXTENT.size)
