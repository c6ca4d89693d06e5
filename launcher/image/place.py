"""The files of one store directory. Which of several stores has something is `launcher.image.store`'s question."""

from __future__ import annotations

import os

from launcher.errors import UfsError
from launcher.image import oci, typed

_MAX_INDEX = 64 << 20
"""Bytes of a store's own index.json, which has an entry of half a kilobyte for each name."""

VERSION = "1"


class Place:
    """Paths in a store directory; docs/store.md draws it. Nothing is created by looking."""

    def __init__(self, root: str) -> None:
        self.root = root

    def path(self, *parts: str) -> str:
        """A path beneath the root."""
        return os.path.join(self.root, *parts)

    def blob(self, digits: str) -> str:
        """The file of a blob."""
        return self.path("blobs", "sha256", digits)

    def layer(self, diff_id: str) -> str:
        """The uncompressed tar of a layer."""
        return self.path("layers", diff_id + ".tar")

    def index(self, image: str) -> str:
        """The compiled index of an image."""
        return self.path("images", image + ".index")

    def entries(self) -> list[object]:
        """The entries of index.json as they are written; none where there is no store yet."""
        path = self.path("index.json")
        data = read(path, _MAX_INDEX)
        if data is None:
            return []
        self.check_version()
        return oci.entries(typed.load(data, path, _MAX_INDEX), path)

    def check_version(self) -> None:
        """UfsError for a store of another version of this program."""
        found = (read(self.path("version")) or VERSION.encode()).decode("ascii", "replace").strip()
        if found != VERSION:
            raise UfsError(
                f"the store {self.root} has version {found!r}, this program knows {VERSION}; "
                "use the program that made it, or set UFS_ROOT to another directory"
            )


def read(path: str, limit: int = typed.MAX_DOCUMENT) -> bytes | None:
    """A document as a whole; None where it is missing. `BadDocument` for one that nobody should read into memory."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with open(fd, "rb", buffering=0) as file:
        size = os.fstat(fd).st_size
        if size > limit:
            raise typed.too_long(path, size, limit)
        return file.read()
