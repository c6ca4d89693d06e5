"""`df`: what a store takes on the disk, and what of it would be freed by what."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import NamedTuple

from launcher.errors import UfsError
from launcher.image import reach
from launcher.image.store import Store


class Usage(NamedTuple):
    """One kind of thing: how many, how many of them in use, bytes on the disk, bytes that could be freed."""

    kind: str
    total: int
    active: int
    size: int
    reclaimable: int


def usage(store: Store, used: set[str]) -> list[Usage]:
    """By kind. `used` are the ids of images that containers use. Files with several names count once."""
    records = store.own_records()
    images = list(dict.fromkeys(record.image for record in records))
    needed: dict[str, set[str]] = {}  # path to the images that need it
    for record in records:
        paths = [store.own.blob(record.manifest.hex), store.own.blob(record.image), store.own.index(record.image)]
        with suppress(UfsError):  # damaged: what it needs cannot be known, and fsck says so
            manifest, config = store.described(record)
            paths += [store.own.blob(layer.hex) for layer in manifest.layers]
            paths += map(store.own.layer, config.diff_ids)
        for path in paths:
            needed.setdefault(path, set()).add(record.image)
    for digits in reach.blobs(store.own):  # of other platforms, and of what is no image
        needed.setdefault(store.own.blob(digits), set())
    active = {image for image in images if image in used}
    size = _bytes(list(needed))
    kept = _bytes([path for path, users in needed.items() if users & active])
    present = [path for name in ("blobs/sha256", "layers", "images") for path in _files(store, name)]
    orphans = [path for path in present if path not in needed]
    partial = [*_files(store, "partial"), *_files(store, "tmp")]
    blobs = [path for path in needed if "/blobs/" in path]
    layers = [path for path in needed if "/layers/" in path]
    return [
        Usage("Images", len(images), len(active), size, size - kept),
        Usage("Compressed blobs", len(blobs), len(blobs), _bytes(blobs), _bytes([*blobs, *layers]) - _bytes(layers)),
        Usage("Unneeded", len(orphans), 0, _bytes(orphans), _bytes(orphans)),
        Usage("Partial downloads", len(partial), 0, _bytes(partial), _bytes(partial)),
    ]


def _files(store: Store, name: str) -> list[str]:
    try:
        return [store.path(name, entry) for entry in os.listdir(store.path(name))]
    except FileNotFoundError:
        return []


def _bytes(paths: list[str]) -> int:
    """What files take on the disk."""
    seen: dict[tuple[int, int], int] = {}
    for path in paths:
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            continue
        seen[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(seen.values())
