"""Decompressing gzip and zstd streams in bounded memory."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import IO, cast

from launcher.errors import UfsError

_CHUNK = 1 << 20
_INPUT = 1 << 18
_ZSTD = b"\x28\xb5\x2f\xfd"
_REFUSED = {
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ\0": ("xz", "unxz"),
    b"PK\x03\x04": ("zip", "unzip"),
    b"\x04\x22\x4d\x18": ("lz4", "unlz4"),
}

Read = Callable[[int], bytes]
"""At most so many bytes of the compressed stream; none at its end."""


def detect(head: bytes, label: str) -> str:
    """``plain``, ``gzip`` or ``zstd`` by the first bytes; UfsError for another known compression."""
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    # Skippable frames (RFC 8878, 3.1.2) may come first: zstd:chunked and pzstd write them.
    if head.startswith(_ZSTD) or (head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50):
        return "zstd"
    for magic, (name, tool) in _REFUSED.items():
        if head.startswith(magic):
            raise UfsError(f"{label} is compressed with {name}, which is not supported; {tool} it first")
    return "plain"


def inflate(kind: str, read: Read, label: str) -> Iterator[bytes]:
    """The decompressed stream in pieces of at most 1 MiB, whatever the ratio."""
    if kind == "gzip":
        return _gunzip(read, label)
    if kind == "zstd":
        return _unzstd(read, label)
    return iter(lambda: read(_CHUNK), b"")


def _gunzip(read: Read, label: str) -> Iterator[bytes]:
    """All members of a gzip stream (RFC 1952, 2.2); zeros may pad its end."""
    data = read(_INPUT)
    while data:
        stream = zlib.decompressobj(wbits=31)
        try:
            while not stream.eof:
                if not data:
                    raise UfsError(f"{label}: the gzip stream ends early; it is truncated, copy it again")
                piece = stream.decompress(data, _CHUNK)
                data = stream.unconsumed_tail or (b"" if stream.eof else read(_INPUT))
                if piece:
                    yield piece
        except zlib.error as error:
            raise UfsError(f"{label}: damaged gzip stream ({error}); copy it again") from None
        data = stream.unused_data or read(_INPUT)
        while data and not data.strip(b"\0"):
            data = read(_INPUT)


class _Readable:
    """What zstandard uses of a file."""

    def __init__(self, read: Read) -> None:
        self.read = read


def _unzstd(read: Read, label: str) -> Iterator[bytes]:
    """All frames of a zstd stream (RFC 8878, 3.1); zstandard does not say where one is cut, its size does."""
    import zstandard

    decompressor = zstandard.ZstdDecompressor()
    try:
        with decompressor.stream_reader(
            cast(IO[bytes], _Readable(read)), read_size=_INPUT, read_across_frames=True
        ) as stream:
            while piece := stream.read(_CHUNK):
                yield piece
    except zstandard.ZstdError as error:
        raise UfsError(f"{label}: damaged zstd stream ({error}); copy it again") from None
