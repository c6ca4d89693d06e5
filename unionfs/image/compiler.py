"""Compiles layer tars into the index of a `CompiledImage`. The format is drawn in docs/index-format.md."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from unionfs.image.changeset import Changeset
from unionfs.image.errors import LayerError
from unionfs.image.inodes import Inodes
from unionfs.image.layer import LayerReader
from unionfs.image.writer import write_index

__all__ = ["LayerError", "compile_image"]

Progress = Callable[[int, int], None]
"""Called now and then with the bytes of all layers that were passed so far, and their total."""

_BETWEEN_REPORTS = 1000  # members


def compile_image(layers: Sequence[str | Path], out: BinaryIO | str | Path, progress: Progress | None = None) -> None:
    """Write the index of the image that `layers` make: paths of *uncompressed* tars, the **lowest first**.

    `out` is a seekable binary file at its beginning, or a path, which then appears complete or not at all:
    a temporary ``.NAME.*.tmp`` beside it is synced and renamed, and removed on failure.

    Raises LayerError (one line: layer, member, reason) for what an image must not hold, and OSError.
    """
    inodes = Inodes()
    sizes, root = _merge(inodes, [str(layer) for layer in layers], progress or _silent)
    if isinstance(out, str | Path):
        _publish(Path(out), lambda file: write_index(file, inodes, root, sizes))
    else:
        write_index(out, inodes, root, sizes)


def _merge(inodes: Inodes, layers: list[str], progress: Progress) -> tuple[list[int], int]:
    """Apply all layers; returns their sizes in bytes and the root's inode."""
    total = sum(os.stat(layer).st_size for layer in layers)
    done = 0
    sizes = []
    root = inodes.add_directory()
    for number, layer in enumerate(layers):
        fd = os.open(layer, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            reader = LayerReader(fd, layer)
            changeset = Changeset(inodes, reader, number, root)
            for count, member in enumerate(reader):
                changeset.add(member)
                if count % _BETWEEN_REPORTS == 0:
                    progress(done + member.end, total)
        finally:
            os.close(fd)
        sizes.append(size)
        done += size
        progress(done, total)
    return sizes, root


def _publish(path: Path, write: Callable[[BinaryIO], None]) -> None:
    fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with open(fd, "wb", buffering=1 << 20) as file:
            write(file)
            file.flush()
            # Opening checks no more than the header, so the rest must be on disk before the name is.
            os.fsync(fd)
        os.rename(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):  # renamed already
            os.unlink(temporary)
        raise


def _silent(done: int, total: int) -> None:
    """No progress wanted."""
