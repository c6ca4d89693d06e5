"""The 512-byte header block of a tar member: V7, POSIX.1-2017 ustar, and what GNU and star made of it.

Where readers differ it is read as Go's archive/tar does (reader.go, strconv.go), which the other container tools use.
"""

from __future__ import annotations

import re
import struct

from unionfs.fuse.wire import encode_rdev

BLOCK = 512
FIELDS = struct.Struct("<100s8s8s8s12s12s8sc100s8s64x8s8s155s8x4s")
"""name mode uid gid size mtime chksum typeflag linkname magic+version (names) devmajor devminor prefix trailer"""

USTAR, GNU = b"ustar\0", b"ustar  \0"
_STAR_TRAILER = b"tar\0"

MAX_SIZE = (1 << 63) - 1
_CHECKSUM_AS_SPACES = 8 * 0x20


def padded(size: int) -> int:
    """Bytes that `size` bytes of content take."""
    return (size + BLOCK - 1) // BLOCK * BLOCK


def string(field: bytes) -> bytes:
    """A text field: up to the first zero byte, if any."""
    return field.partition(b"\0")[0]


_OCTAL = re.compile(rb"[\0\t\n\v\f\r ]*([0-7]*)(?:[\0\t\n\v\f\r ]|\Z)")


def number(field: bytes, negative: bool = False) -> int:
    """A numeric field: octal text, or base 256 where the top bit is set.

    Blanks and zero bytes may stand before the digits; what follows a blank or zero byte after them says nothing.
    """
    if field[0] & 0x80:
        value = int.from_bytes(field, "big")
        bits = 8 * len(field)
        # The top bit is the mark; the one below it the sign.
        value = value - (1 << bits) if field[0] & 0x40 else value - (1 << (bits - 1))
        if value < 0 and not negative:
            raise ValueError(f"negative number {value}")
        return value
    text = field.rstrip(b"\0 ")
    if text.isdigit() and b"8" not in text and b"9" not in text:  # what nearly every writer writes
        return int(text, 8)
    match = _OCTAL.match(field)
    if match is None:
        raise ValueError(f"malformed number {field!r}")
    return int(match[1] or b"0", 8)


def owner(number: int) -> int:
    """A user or group id as chown(2) takes what an archive says: 32 bits, and the highest number changes nothing.

    So it stays that of root, who unpacks.
    """
    wrapped = number & 0xFFFFFFFF
    return 0 if wrapped == 0xFFFFFFFF else wrapped


def name(fields: tuple[bytes, ...]) -> bytes:
    """The name of a member, of name and prefix: what the bytes of the prefix mean depends on the format."""
    short, prefix = string(fields[0]), fields[12]
    if not prefix[0]:
        return short
    magic = fields[9]
    if magic == GNU:
        # The times of GNU stand there. Go wrote a prefix nevertheless until 1.8, and many old images have such.
        prefix = string(prefix) if not _are_times(prefix) and string(prefix).isascii() else b""
    elif magic.startswith(USTAR):
        prefix = string(prefix[:131] if fields[13] == _STAR_TRAILER else prefix)
    else:
        prefix = b""
    return prefix + b"/" + short if prefix else short


def access_time(fields: tuple[bytes, ...]) -> int | None:
    """Seconds that star or GNU state of the last access, or None."""
    if fields[13] == _STAR_TRAILER and fields[9].startswith(USTAR):
        return number(fields[12][131:143], negative=True)
    if fields[12][0] and fields[9] == GNU and _are_times(fields[12]):
        return number(fields[12][:12], negative=True)
    return None


def _are_times(prefix: bytes) -> bool:
    try:
        number(prefix[:12], negative=True)
        number(prefix[12:24], negative=True)
    except ValueError:
        return False
    return True


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


def device(fields: tuple[bytes, ...]) -> int:
    """A device number as the FUSE wire carries it: 12 bits of major, 20 of minor. V7 has none."""
    if fields[9] != GNU and not fields[9].startswith(USTAR):
        return 0
    major, minor = number(fields[10]), number(fields[11])
    if major >= 1 << 12 or minor >= 1 << 20:
        raise ValueError(f"device number {major}:{minor} is out of range")
    return encode_rdev(major, minor)
