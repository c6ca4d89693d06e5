"""PAX extended headers and sparse maps, in bytes.

POSIX.1-2017 pax, "pax Header Block"; GNU tar manual, appendix "Sparse Formats" for the GNU.sparse keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

XATTR_PREFIX = b"SCHILY.xattr."
MAX_HEADER = 1 << 20
"""Bytes of one extended header. A kernel xattr value has at most 64 KiB; more than this is an attack."""

MAX_EXTENTS = 1_000_000

_TIME = re.compile(rb"(-?)(\d{1,17})(?:\.(\d*))?")
_TIME_LIMIT = 1 << 55  # seconds; beyond any file system, far from overflowing 64 bits

Pairs = list[tuple[int, int]]


def records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The (key, value) records of an extended header, in order. ValueError for what is not one."""
    at, end = 0, len(data)
    while at < end:
        space = data.find(b" ", at, at + 20)
        if space < 0 or not data[at:space].isdigit():
            if not data[at:].strip(b"\0"):
                return
            raise ValueError("malformed extended header")
        stop = at + int(data[at:space])
        equals = data.find(b"=", space + 1, stop)
        if stop > end or equals <= space + 1 or data[stop - 1] != 0x0A:
            raise ValueError("malformed extended header")
        yield data[space + 1 : equals], data[equals + 1 : stop - 1]
        at = stop


def decimal(value: bytes, what: str) -> int:
    """A number of an extended header."""
    if not value.isdigit() or len(value) > 20:
        raise ValueError(f"{what} {value[:40]!r} is not a number")
    return int(value)


def timestamp(value: bytes) -> tuple[int, int]:
    """(seconds, nanoseconds) of a decimal number; nanoseconds count upwards also before 1970."""
    match = _TIME.fullmatch(value)
    if match is None:
        raise ValueError(f"time {value[:40]!r} is not a number")
    sign, whole, fraction = match.groups()
    seconds, nanoseconds = int(whole), int((fraction or b"0")[:9].ljust(9, b"0"))
    if sign:
        seconds, nanoseconds = (-seconds - 1, 10**9 - nanoseconds) if nanoseconds else (-seconds, 0)
    return check_time(seconds), nanoseconds


def check_time(seconds: int) -> int:
    """Refuse a time that no file system could hold."""
    if not -_TIME_LIMIT < seconds < _TIME_LIMIT:
        raise ValueError(f"absurd time {seconds}")
    return seconds


def pairs_of(numbers: list[int]) -> Pairs:
    """(offset, length) pairs from a flat list."""
    if len(numbers) % 2 or len(numbers) > 2 * MAX_EXTENTS:
        raise ValueError("malformed sparse map")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def map_in_header(found: list[tuple[bytes, bytes]]) -> Pairs:
    """Sparse formats 0.0 (repeated offset and numbytes) and 0.1 (one list separated by commas)."""
    numbers: list[int] = []
    for key, value in found:
        if key == b"GNU.sparse.map":
            numbers = [decimal(number, "sparse map entry") for number in value.split(b",")] if value else []
        elif key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            if (key == b"GNU.sparse.numbytes") != len(numbers) % 2:
                raise ValueError("malformed sparse map")
            numbers.append(decimal(value, "sparse map entry"))
    return pairs_of(numbers)


def map_in_data(read: Callable[[int], bytes]) -> tuple[Pairs, int]:
    """Sparse format 1.0: decimal lines in front of the data, padded to blocks. `read(n)` gives block n.

    Returns the pairs and the number of bytes that the map took.
    """
    text, blocks = b"", 0
    numbers: list[int] = []
    wanted = 1
    while len(numbers) < wanted:
        line, newline, rest = text.partition(b"\n")
        if not newline:
            if len(text) > 512:
                raise ValueError("malformed sparse map")
            text += read(blocks)
            blocks += 1
            continue
        numbers.append(decimal(line, "sparse map entry"))
        text = rest
        if len(numbers) == 1:
            wanted = 1 + 2 * numbers[0]
            if numbers[0] > MAX_EXTENTS:
                raise ValueError("malformed sparse map")
    return pairs_of(numbers[1:]), blocks * 512


def extents(pairs: Pairs, size: int, data: int, stored: int) -> list[tuple[int, int, int]]:
    """(offset, length, offset in the tar) of the data of a sparse file, ascending; all between are holes.

    `size` is the file's size, `data` where its stored bytes begin in the tar, `stored` how many there are.
    """
    result = []
    end, used = 0, 0
    for offset, length in pairs:
        if offset < end or offset + length > size or used + length > stored:
            raise ValueError("sparse map outside of the file")
        if length:
            result.append((offset, length, data + used))
        end, used = offset + length, used + length
    return result
