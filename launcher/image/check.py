"""`fsck`: whether everything in a store is what its name says, and making it so again.

Blobs are what counts: layers and indexes are derived from them, and what is wrong with those is mended by deleting and
making them again. A blob that is damaged can only be fetched again, where its image came from a registry.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import NamedTuple

from launcher.errors import UfsError
from launcher.image import load
from launcher.image.load import Progress
from launcher.image.store import Record, Store
from launcher.image.workspace import change_index
from unionfs.image.errors import LayerError
from unionfs.image.format import BadIndex
from unionfs.image.tree import CompiledImage

_CHUNK = 1 << 20


class Flaw(NamedTuple):
    """Something that is wrong; `path` in the store. `derived`: it can be made again from what is there."""

    path: str
    reason: str
    derived: bool
    images: list[str]
    """Ids of the images that need it; none where an entry of index.json leads to nothing."""


def check(store: Store, progress: Progress) -> list[Flaw]:
    """Read all that images need. UfsError where index.json itself cannot be read."""
    return list(_Check(store, progress).flaws())


def repair(store: Store, flaws: list[Flaw]) -> list[Flaw]:
    """Make derived files again, and take entries that lead to nothing out of index.json; what stays wrong."""
    left = []
    for flaw in flaws:
        if not flaw.images:
            continue
        if not flaw.derived:
            left.append(flaw)
        elif os.path.exists(flaw.path):
            os.unlink(flaw.path)
    broken = {image for flaw in left for image in flaw.images}
    images = {image for flaw in flaws if flaw.derived for image in flaw.images}
    for record in store.own_records():
        if record.image in images - broken:
            images.discard(record.image)
            load.rebuild(store, record.image, *store.described(record))
    if any(not flaw.images for flaw in flaws):
        change_index(store, lambda records: records, drop_damaged=True)
    return left


class _Check:
    def __init__(self, store: Store, progress: Progress) -> None:
        self._store = store
        self._progress = progress

    def flaws(self) -> Iterator[Flaw]:
        blobs: dict[str, tuple[int | None, list[str]]] = {}
        layers: dict[str, list[str]] = {}
        sound: list[Record] = []
        records, others = self._store.survey()
        for other in others:
            if other.damaged:
                yield Flaw(self._store.path("index.json"), f"{other.name} is no image: {other.reason}", False, [])
        for record in records:
            try:
                manifest, config = self._store.described(record)
            except UfsError as error:
                yield Flaw(self._store.blob(record.manifest.hex), str(error), False, [record.image])
                continue
            sound.append(record)
            for one in (record.manifest, manifest.config, *manifest.layers):
                blobs.setdefault(one.hex, (one.size, []))[1].append(record.image)
            for digits in config.diff_ids:
                layers.setdefault(digits, []).append(record.image)
        paths = [*map(self._store.blob, blobs), *map(self._store.layer, layers)]
        self._progress.begin("Checking", sum(os.path.getsize(path) for path in paths if os.path.exists(path)))
        for digits, (size, images) in blobs.items():
            yield from self._content(self._store.blob(digits), digits, size, False, images)
        for digits, images in layers.items():
            path = self._store.layer(digits)
            yield from self._content(path, digits, None, path == self._store.own.layer(digits), images)
        for image in dict.fromkeys(record.image for record in sound):
            yield from self._index(image)

    def _content(self, path: str, digits: str, size: int | None, derived: bool, images: list[str]) -> Iterator[Flaw]:
        images = list(dict.fromkeys(images))
        digest = hashlib.sha256()
        try:
            with open(path, "rb", buffering=0) as file:
                found = os.fstat(file.fileno()).st_size
                if size is not None and found != size:
                    yield Flaw(path, f"has {found} bytes instead of {size}", derived, images)
                    return
                while piece := file.read(_CHUNK):
                    digest.update(piece)
                    self._progress.advance(len(piece))
        except FileNotFoundError:
            yield Flaw(path, "is missing", derived, images)
            return
        if digest.hexdigest() != digits:
            yield Flaw(path, "does not match its digest", derived, images)

    def _index(self, image: str) -> Iterator[Flaw]:
        path = self._store.index(image)
        try:
            CompiledImage(path, [self._store.layer(digits) for digits in self._store.config(image).diff_ids]).close()
        except (BadIndex, FileNotFoundError, LayerError) as error:
            if os.path.exists(path) and not os.path.getsize(path):
                return  # the first use of the image makes it, as `load.bring` had it
            reason = "is missing" if isinstance(error, FileNotFoundError) else "is of another version or damaged"
            yield Flaw(path, reason, True, [image])
