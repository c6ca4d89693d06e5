"""How much a compressed stream may unpack to: a few kB can hold terabytes.

What is honest compresses by ten, text and zeros amid it by a hundred at most; gzip itself ends at 1,032, the others
have no end. A limit of the user's own, UFS_UNPACK_LIMIT, takes the place of all.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator

from launcher.errors import UfsError

VARIABLE = "UFS_UNPACK_LIMIT"
FREE = 1 << 30
"""Bytes that any stream may unpack to."""
RATIO = 200
"""Bytes more for each byte of the stream."""
TOTAL = 1 << 38
"""Bytes that one stream may unpack to, whatever its size: 256 GiB."""

_SIZE = re.compile(r"([0-9]+)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}


def bounded(pieces: Iterable[bytes], consumed: Callable[[], int], label: str) -> Iterator[bytes]:
    """The pieces of a decompressed stream; UfsError where they get too many for the `consumed` bytes of the stream."""
    own = own_limit()
    size = 0
    for piece in pieces:
        size += len(piece)
        limit = own if own is not None else min(TOTAL, FREE + RATIO * consumed())
        if size > limit:
            raise UfsError(
                f"{label} unpacks to more than {limit} bytes from {consumed()}: a bomb, or very empty; "
                f"if you trust it, set {VARIABLE} to what it may unpack to, as 500G"
            )
        yield piece


def own_limit() -> int | None:
    """The limit that the user sets, in bytes; units are powers of 1024."""
    text = os.environ.get(VARIABLE, "")
    if not text:
        return None
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UfsError(f"{VARIABLE}={text}: give a number of bytes, or one with k, m, g or t behind it, as 500G")
    return int(match[1]) << _UNITS[match[2].lower()]
