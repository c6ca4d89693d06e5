"""Decompressing gzip, zstd, xz and bzip2 streams in bounded memory."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import IO, Protocol, cast

from launcher.errors import UfsError
from launcher.image import limits

_CHUNK = 1 << 20
_INPUT = 1 << 18
_ZSTD = b"\x28\xb5\x2f\xfd"
_XZ, _BZIP2 = b"\xfd7zXZ\0", b"BZh"
_XZ_MEMORY = 1 << 28  # bytes that a stream may ask for; xz -9 asks for 65 MiB
_REFUSED = {
    b"PK\x03\x04": ("zip", "unzip"),
    b"\x04\x22\x4d\x18": ("lz4", "unlz4"),
}

Read = Callable[[int], bytes]
"""At most so many bytes of the compressed stream; none at its end."""


def detect(head: bytes, label: str) -> str:
    """``plain``, ``gzip``, ``zstd``, ``xz`` or ``bzip2`` by the first bytes; UfsError for another known compression."""
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    # Skippable frames (RFC 8878, 3.1.2) may come first: zstd:chunked and pzstd write them.
    if head.startswith(_ZSTD) or (head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50):
        return "zstd"
    if head.startswith(_XZ):
        return "xz"
    if head.startswith(_BZIP2) and head[3:4].isdigit():
        return "bzip2"
    for magic, (name, tool) in _REFUSED.items():
        if head.startswith(magic):
            raise UfsError(f"{label} is compressed with {name}, which is not supported; {tool} it first")
    return "plain"


def inflate(kind: str, read: Read, label: str) -> Iterator[bytes]:
    """The decompressed stream in pieces of at most 1 MiB, and no more of them than `limits` allows."""
    if kind == "plain":
        return iter(lambda: read(_CHUNK), b"")
    consumed = 0

    def counted(size: int) -> bytes:
        nonlocal consumed
        data = read(size)
        consumed += len(data)
        return data

    pieces = _unzstd(counted, label) if kind == "zstd" else _inflate(kind, counted, label)
    return limits.bounded(pieces, lambda: consumed, label)


class _Stream(Protocol):
    """One stream of a format, as zlib, lzma and bz2 have it."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes: ...


def _new(kind: str) -> tuple[Callable[[], _Stream], type[Exception]]:
    """(maker of a decompressor, its error) of a format."""
    if kind == "gzip":
        return lambda: zlib.decompressobj(wbits=31), zlib.error
    if kind == "xz":
        import lzma

        return lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY), lzma.LZMAError
    import bz2

    return bz2.BZ2Decompressor, OSError


def _inflate(kind: str, read: Read, label: str) -> Iterator[bytes]:
    """All streams that follow one another (RFC 1952, 2.2; xz and bzip2 alike); zeros may pad the end."""
    new, error = _new(kind)
    data = read(_INPUT)
    while data:
        stream = new()
        while not stream.eof:
            if not data and getattr(stream, "needs_input", True):
                raise UfsError(f"{label}: the {kind} stream ends early; it was cut (truncated), copy it again")
            try:
                piece = stream.decompress(data, _CHUNK)
            except error as reason:
                raise UfsError(f"{label}: damaged {kind} stream ({reason}); copy it again") from None
            if piece:
                yield piece
            # zlib gives back what it has not used; the others keep it until they need more.
            data = getattr(stream, "unconsumed_tail", b"")
            if not data and not stream.eof and getattr(stream, "needs_input", True):
                data = read(_INPUT)
        data = stream.unused_data or read(_INPUT)
        while data and not data.strip(b"\0"):
            data = read(_INPUT)


_LAST = b"ufs: end of the stream"


class _WithLast:
    """A stream with one more frame at its end, which comes out whole only if the one before it was complete.

    zstandard takes a cut stream for one that ends and says nothing.
    """

    def __init__(self, read: Read, last: bytes) -> None:
        self._read = read
        self._last = last
        self.ended = False

    def read(self, size: int) -> bytes:
        data = self._read(size) if not self.ended else b""
        if data:
            return data
        self.ended, self._last, last = True, b"", self._last
        return last


def _unzstd(read: Read, label: str) -> Iterator[bytes]:
    """All frames of a zstd stream (RFC 8878, 3.1)."""
    import zstandard

    source = _WithLast(read, zstandard.ZstdCompressor().compress(_LAST))
    cut = UfsError(f"{label}: the zstd stream ends early; it was cut (truncated), copy it again")
    held = b""  # the end of what came out so far: it may be the last frame, or the beginning of it
    try:
        with zstandard.ZstdDecompressor().stream_reader(
            cast(IO[bytes], source), read_size=_INPUT, read_across_frames=True
        ) as stream:
            while piece := stream.read(_CHUNK):
                if len(piece) >= len(_LAST):
                    if held:
                        yield held
                    held = piece
                else:
                    held += piece
    except zstandard.ZstdError as error:
        if source.ended:
            raise cut from None
        raise UfsError(f"{label}: damaged zstd stream ({error}); copy it again") from None
    if not held.endswith(_LAST):
        raise cut
    if rest := held.removesuffix(_LAST):
        yield rest
