"""What a container says faster than it can be written as lines of its log waits here as it came.

Short lines become twenty times as long in the log, and most of what comes in a flood falls out of the log again before
anybody reads it. So it is kept raw, in `log.raw` and the older `log.raw.1`, and only as much as the log may hold
becomes lines when the flood is over. Files, not memory: a supervisor that is killed loses nothing.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

NAME, OLDER = "log.raw", "log.raw.1"
_HEADER = struct.Struct("=30sBQ")  # time, whether it is standard error, bytes that follow
_PREFIX = 40  # bytes that a line of the log has more than the text, at least


class Piece(NamedTuple):
    """What one read(2) brought."""

    stamp: bytes
    stream: bytes
    data: bytes


def length(data: bytes) -> int:
    """About how many bytes `data` is as lines of the log."""
    return len(data) + _PREFIX * (data.count(b"\n") + 1)


class Spool:
    """The pieces of a flood in the directory of a container; no more of them than make `limit` bytes of log, or twice
    as many.
    """

    def __init__(self, directory: str, limit: int) -> None:
        self._directory = directory
        self._limit = limit
        self._begin()

    def add(self, stamp: bytes, stream: bytes, data: bytes) -> None:
        """Keep a piece; the oldest go when they cannot be wanted any more."""
        header = _HEADER.pack(stamp, stream == b"stderr", len(data))
        done = os.writev(self._file, [header, data])
        if done < len(header) + len(data):
            # write(2) says so with the next call only. A piece that is cut ends the file.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._length += length(data)
        if self._length > self._limit:
            os.close(self._file)
            os.rename(f"{self._directory}/{NAME}", f"{self._directory}/{OLDER}")
            self._begin()

    def _begin(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(f"{self._directory}/{NAME}", flags, 0o600)
        self._length = 0

    def close(self) -> None:
        """Add no more."""
        os.close(self._file)


def left(directory: str) -> bool:
    """Whether a flood was not made lines of the log yet."""
    return os.path.exists(f"{directory}/{NAME}") or os.path.exists(f"{directory}/{OLDER}")


def pieces(directory: str, limit: int) -> Iterator[Piece]:
    """The last pieces, as many as make `limit` bytes of log; what is older is passed over."""
    total = sum(length(piece.data) for piece in _every(directory))
    for piece in _every(directory):
        total -= length(piece.data)
        if total <= limit:
            yield piece


def remove(directory: str) -> None:
    """It is in the log now."""
    for name in (OLDER, NAME):
        with suppress(FileNotFoundError):  # the flood was short
            os.unlink(f"{directory}/{name}")


def _every(directory: str) -> Iterator[Piece]:
    for name in (OLDER, NAME):
        try:
            file = open(f"{directory}/{name}", "rb")
        except FileNotFoundError:
            continue
        with file:
            while len(header := file.read(_HEADER.size)) == _HEADER.size:
                stamp, is_error, count = _HEADER.unpack(header)
                data = file.read(count)
                if len(data) < count:
                    break  # its writer was killed, or the disk was full
                yield Piece(stamp, b"stderr" if is_error else b"stdout", data)
