"""The 512-byte header block of a tar member: POSIX.1-2017 ustar, with the extensions of GNU and star."""

from __future__ import annotations

import struct

from unionfs.fuse.wire import encode_rdev

BLOCK = 512
FIELDS = struct.Struct("<100s8s8s8s12s12s8sc100s8s64x8s8s155s12x")
"""name mode uid gid size mtime chksum typeflag linkname magic+version (names) devmajor devminor prefix"""

MAX_SIZE = (1 << 63) - 1
_CHECKSUM_AS_SPACES = 8 * 0x20


def padded(size: int) -> int:
    """Bytes that `size` bytes of content take."""
    return (size + BLOCK - 1) // BLOCK * BLOCK


def string(field: bytes) -> bytes:
    """A text field: up to the first zero byte, if any."""
    return field.partition(b"\0")[0]


def number(field: bytes, negative: bool = False) -> int:
    """A numeric field: octal text, or base 256 where the top bit is set."""
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
    try:
        return int(text, 8)
    except ValueError:
        raise ValueError(f"malformed number {text!r}") from None


def size_of(field: bytes) -> int:
    """A number of bytes, refused where no file could have as many."""
    return check_size(number(field))


def check_size(size: int) -> int:
    """Refuse what off_t cannot hold."""
    if size > MAX_SIZE:
        raise ValueError(f"absurd size {size}")
    return size


def check_sum(block: bytes, field: bytes) -> None:
    """The sum of the header's bytes with its own field as spaces; old writers summed signed bytes."""
    stated = number(field)
    total = sum(block) - sum(field) + _CHECKSUM_AS_SPACES
    if total != stated:
        high = sum(byte > 127 for byte in block) - sum(byte > 127 for byte in field)
        if total - 256 * high != stated:
            raise ValueError("damaged header: its checksum does not match")


def device(major_field: bytes, minor_field: bytes) -> int:
    """A device number as the FUSE wire carries it: 12 bits of major, 20 of minor."""
    major, minor = number(major_field), number(minor_field)
    if major >= 1 << 12 or minor >= 1 << 20:
        raise ValueError(f"device number {major}:{minor} is out of range")
    return encode_rdev(major, minor)
