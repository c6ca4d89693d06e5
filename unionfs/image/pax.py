"""PAX extended headers, in bytes: POSIX.1-2017, pax, "pax Header Block"."""

from __future__ import annotations

import re
from collections.abc import Iterator

from unionfs.image.errors import show

XATTR = b"SCHILY.xattr."
"""What the names of records with extended attributes begin with."""
MAX_HEADER = 1 << 20
"""Bytes of one extended header. A kernel xattr value has at most 64 KiB; more than this is an attack."""

_INTEGER = re.compile(rb"[+-]?[0-9]{1,20}")
_TIME = re.compile(rb"([+-]?)(\d{1,17})(?:\.(\d*))?")
_TIME_LIMIT = 1 << 55  # seconds; beyond any file system, far from overflowing 64 bits


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


def integer(value: bytes, what: str) -> int:
    """A number of an extended header that may be negative."""
    if _INTEGER.fullmatch(value) is None:
        raise ValueError(f"{what} {value[:40]!r} is not a number")
    return int(value)


def timestamp(value: bytes) -> tuple[int, int]:
    """(seconds, nanoseconds) of a decimal number; nanoseconds count upwards also before 1970."""
    match = _TIME.fullmatch(value)
    if match is None:
        raise ValueError(f"time {value[:40]!r} is not a number")
    sign, whole, fraction = match.groups()
    seconds, nanoseconds = int(whole), int((fraction or b"0")[:9].ljust(9, b"0"))
    if sign == b"-":
        seconds, nanoseconds = (-seconds - 1, 10**9 - nanoseconds) if nanoseconds else (-seconds, 0)
    return check_time(seconds), nanoseconds


def check_time(seconds: int) -> int:
    """Refuse a time that no file system could hold."""
    if not -_TIME_LIMIT < seconds < _TIME_LIMIT:
        raise ValueError(f"absurd time {seconds}")
    return seconds


def xattrs(values: dict[bytes, bytes]) -> dict[bytes, bytes] | None:
    """The extended attributes of a member, by name, or None. Limits are the kernel's (linux/limits.h)."""
    found = {}
    for key, value in values.items():
        if key.startswith(XATTR):
            name = key[len(XATTR) :]
            if not 0 < len(name) < 256 or b"\0" in name:
                raise ValueError(f"malformed extended attribute name {show(name)}")
            if len(value) > 65536:
                raise ValueError(f"extended attribute {show(name)} of {len(value)} bytes, the limit is 65536")
            found[name] = value
    return found or None
