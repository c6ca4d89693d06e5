"""Maps of sparse members: the old GNU format and PAX 0.0, 0.1 and 1.0 (GNU tar manual, "Sparse Formats")."""

from __future__ import annotations

from collections.abc import Callable

from unionfs.image.header import BLOCK, check_size, size_of
from unionfs.image.pax import decimal

MAX_EXTENTS = 1_000_000

Pairs = list[tuple[int, int]]
Extents = list[tuple[int, int, int]]
"""(offset, length, offset in the tar) of the data of a file, ascending; all between and after are holes."""

ReadBlock = Callable[[int], bytes]
"""Gives the block at an offset of the tar; ValueError where the archive is cut."""


def is_sparse(kind: bytes, values: dict[bytes, bytes]) -> bool:
    """Whether a member of type `kind` with these PAX values has a sparse map."""
    return kind == b"S" or b"GNU.sparse.major" in values or b"GNU.sparse.size" in values


def old(block: bytes, read: ReadBlock, data: int, stored: int) -> tuple[int, int, Extents]:
    """The old GNU format: four entries in the header `block`, then blocks of 21 before the data.

    As its siblings below: `data` is where the content begins in the tar, `stored` its bytes there; returns
    the size of the file, where the stored bytes of the file begin, and the extents.
    """
    fields, more = block[386:482], block[482]
    size = size_of(block[483:495])
    numbers: list[int] = []
    while True:
        for at in range(0, len(fields), 12):
            field = fields[at : at + 12]
            if not at % 24 and not field[0]:
                break  # unused, and so are all that follow in this block
            numbers.append(size_of(field))
        if not more:
            return size, data, _extents(_pairs(numbers), size, data, stored)
        if len(numbers) > 2 * MAX_EXTENTS:
            raise ValueError("malformed sparse map")
        extension = read(data)
        fields, more, data = extension[:504], extension[504], data + BLOCK


def in_header(
    records: list[tuple[bytes, bytes]], values: dict[bytes, bytes], data: int, stored: int
) -> tuple[int, int, Extents]:
    """PAX 0.0 (records of offset and numbytes, repeated) and 0.1 (one list separated by commas)."""
    size = check_size(decimal(values.get(b"GNU.sparse.size", b""), "sparse size"))
    numbers: list[int] = []
    for key, value in records:
        if key == b"GNU.sparse.map":
            numbers = [decimal(text, "sparse map entry") for text in value.split(b",")] if value else []
        elif key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            if (key == b"GNU.sparse.numbytes") != len(numbers) % 2:
                raise ValueError("malformed sparse map")
            numbers.append(decimal(value, "sparse map entry"))
    return size, data, _extents(_pairs(numbers), size, data, stored)


def in_data(values: dict[bytes, bytes], read: ReadBlock, data: int, stored: int) -> tuple[int, int, Extents]:
    """PAX 1.0: lines of decimal numbers before the data, filled up to a block: a count, then the pairs."""
    size = check_size(decimal(values.get(b"GNU.sparse.realsize", b""), "sparse size"))
    end = data + stored
    text = b""
    numbers: list[int] = []
    wanted = 1
    while len(numbers) < wanted:
        line, newline, rest = text.partition(b"\n")
        if not newline:
            if len(text) > BLOCK or data >= end:
                raise ValueError("malformed sparse map")
            text += read(data)
            data += BLOCK
            continue
        text = rest
        numbers.append(decimal(line, "sparse map entry"))
        if len(numbers) == 1:
            wanted += 2 * numbers[0]
            if numbers[0] > MAX_EXTENTS:
                raise ValueError("malformed sparse map")
    return size, data, _extents(_pairs(numbers[1:]), size, data, end - data)


def _pairs(numbers: list[int]) -> Pairs:
    if len(numbers) % 2 or len(numbers) > 2 * MAX_EXTENTS:
        raise ValueError("malformed sparse map")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _extents(pairs: Pairs, size: int, data: int, stored: int) -> Extents:
    result = []
    end, used = 0, 0
    for offset, length in pairs:
        if offset < end or offset + length > size or used + length > stored:
            raise ValueError("sparse map outside of the file")
        if length:
            result.append((offset, length, data + used))
        end, used = offset + length, used + length
    return result
