"""Loading images into the store: read, verify, compile, and only then publish."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from launcher.errors import UfsError
from launcher.image import archive, oci
from launcher.image.found import Found, LayerSource, check
from launcher.image.layers import Ingested, Ingesting
from launcher.image.oci import Descriptor, ImageConfig, Manifest, Platform
from launcher.image.source import opened
from launcher.image.store import Record, Store
from launcher.image.workspace import Workspace, change_index, sync_directories
from unionfs.image.compiler import compile_image
from unionfs.image.errors import LayerError
from unionfs.image.format import BadIndex
from unionfs.image.tree import CompiledImage


class Progress(Protocol):
    """Who wants to know how far a load is. `advance` is called from any thread."""

    def begin(self, what: str, total: int) -> None:
        """A step of `total` bytes begins."""

    def advance(self, count: int) -> None:
        """`count` more bytes of the step are done."""


class Silent:
    """Nobody wants to know."""

    def begin(self, what: str, total: int) -> None:
        """Nothing."""

    def advance(self, count: int) -> None:
        """Nothing."""


class Loaded(NamedTuple):
    """An image that is in the store now. `image` is its id; `names` are normalised and may be none."""

    names: list[str]
    image: str
    manifest: Descriptor
    config: ImageConfig


def load(
    path: str, store: Store, wanted: Platform | None = None, progress: Progress | None = None, named: bool = True
) -> list[Loaded]:
    """Load every image of an archive or layout (``-``: standard input), of each the one for `wanted`.

    With `named`, the images get the names that the archive has for them, and lose those they had before to
    nobody: an image that loses its last name stays. Raises UfsError, OSError; the store is then as before.
    """
    with _full_disk(store), Workspace(store) as workspace, opened(path, workspace) as (source, key):
        found = _known(archive.images(source, wanted), store)
        loaded = bring(found, workspace, progress or Silent(), source.label)
        change_index(store, lambda records: added(records, loaded, key, named))
        return loaded


def _known(found: list[Found], store: Store) -> list[Found]:
    """Images of docker-archives, which state diff ids alone, with the manifests and blobs that the store has of them.

    So what is there is neither read nor written again.
    """
    if all(image.manifest for image in found):
        return found
    manifests: dict[str, tuple[Descriptor, bytes]] = {}
    blobs: dict[str, Descriptor] = {}
    for record in store.own_records():
        try:
            manifest, data = store.manifest_and_bytes(record.manifest.hex)
            diff_ids = store.config(record.image).diff_ids
        except UfsError:  # damaged, and this load may be what mends it
            continue
        manifests.setdefault(record.image, (record.manifest._replace(annotations={}, platform=None), data))
        for layer, diff_id in zip(manifest.layers, diff_ids, strict=False):
            if os.path.exists(store.blob(layer.hex)):
                blobs.setdefault(diff_id, layer._replace(annotations={}))
    return [image if image.manifest else _with_known(image, manifests, blobs) for image in found]


def _with_known(
    image: Found, manifests: Mapping[str, tuple[Descriptor, bytes]], blobs: Mapping[str, Descriptor]
) -> Found:
    layers = [layer._replace(descriptor=blobs.get(layer.diff_id)) for layer in image.layers]
    whole = all(layer.descriptor for layer in layers)
    return image._replace(layers=layers, manifest=manifests.get(image.image) if whole else None)


def bring(
    found: Sequence[Found], workspace: Workspace, steps: Progress, label: str, *, lazily: bool = False
) -> list[Loaded]:
    """Verify, compile and publish images, all or none, but for their entries in index.json (`added`).

    `lazily`: their first use compiles them; until then the index is empty.
    """
    layers = list(_distinct([layer for image in found for layer in image.layers]))
    steps.begin(f"Reading {len(layers)} layers", sum(layer.blob.size for layer in layers if layer.blob))
    with _full_disk(workspace.store), Ingesting(layers, workspace, steps.advance) as ingesting:
        by_key = dict(zip(map(_key, layers), ingesting.results(), strict=True))
        ready = [_Ready(image, [by_key[_key(layer)] for layer in image.layers], workspace) for image in found]
        for image in ready:
            image.put_off() if lazily else image.compile(steps, label)
        ingesting.synced()
        for image in ready:
            image.publish()
        sync_directories(workspace.store)
    return [image.loaded for image in ready]


def rebuild(store: Store, image: str, manifest: Manifest, config: ImageConfig) -> None:
    """Make what was deleted or has become useless again: layers from their blobs, the index from the layers."""
    check(config, len(manifest.layers), None, f"config of image {image[:12]}")
    layers = []
    for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True):
        layers.append(LayerSource(f"layer {layer.hex[:12]} of image {image[:12]}", None, diff_id, layer))
    with _full_disk(store), Workspace(store) as workspace:
        distinct = list(_distinct(layers))
        with Ingesting(distinct, workspace, Silent().advance) as ingesting:
            by_key = dict(zip(map(_key, distinct), ingesting.results(), strict=True))
            ingested = [by_key[_key(layer)] for layer in layers]
            index = _compile(workspace, ingested, Silent(), f"image {image[:12]}")
            ingesting.synced()
        for one in ingested:
            _publish_layer(workspace, one)
        workspace.publish(index, store.own.index(image))
        sync_directories(store)


class _Ready:
    """An image whose layers are verified."""

    def __init__(self, found: Found, layers: list[Ingested], workspace: Workspace) -> None:
        self._found = found
        self._layers = layers
        self._workspace = workspace
        self._index: str | None = None
        config = Descriptor(oci.CONFIG, "sha256:" + found.image, len(found.config_bytes))
        manifest = found.manifest or _written(Manifest(config, [layer.descriptor for layer in layers]))
        self._manifest_bytes = manifest[1]
        self.loaded = Loaded(found.names, found.image, manifest[0], found.config)

    def compile(self, progress: Progress, label: str) -> None:
        """Compile the index, unless the store has one that is good for these layers."""
        store = self._workspace.store
        if all(layer.tar is None for layer in self._layers) and _usable(store, self.loaded):
            return
        self._index = _compile(self._workspace, self._layers, progress, label)

    def put_off(self) -> None:
        """Have the first use of the image compile it: to that an empty index is a damaged one."""
        if not os.path.exists(self._workspace.store.index(self.loaded.image)):
            self._index = self._workspace.write(b"")

    def publish(self) -> None:
        """Everything of the image gets its place, what others refer to first."""
        store, workspace = self._workspace.store.own, self._workspace
        for layer in self._layers:
            _publish_layer(workspace, layer)
        if self._index:
            workspace.publish(self._index, store.index(self.loaded.image))
        for digits, content in (
            (self.loaded.image, self._found.config_bytes),
            (self.loaded.manifest.hex, self._manifest_bytes),
        ):
            if not os.path.exists(store.blob(digits)):
                workspace.publish(workspace.write(content), store.blob(digits))


def _written(manifest: Manifest) -> tuple[Descriptor, bytes]:
    data = json.dumps(manifest.document()).encode()
    return Descriptor(oci.MANIFEST, "sha256:" + hashlib.sha256(data).hexdigest(), len(data)), data


def _usable(store: Store, image: Loaded) -> bool:
    try:
        CompiledImage(store.index(image.image), [store.layer(digits) for digits in image.config.diff_ids]).close()
    except (FileNotFoundError, BadIndex):
        return False
    return True


def _compile(workspace: Workspace, layers: Sequence[Ingested], progress: Progress, label: str) -> str:
    """Compile an index into a temporary and return its path, on disk."""
    paths = [layer.tar_path(workspace.store) for layer in layers]
    progress.begin("Indexing", sum(os.stat(path).st_size for path in paths))
    passed = 0

    def report(done: int, total: int) -> None:
        nonlocal passed
        progress.advance(done - passed)
        passed = done

    fd, path = workspace.temporary()
    try:
        with open(fd, "w+b", buffering=1 << 20) as file:
            compile_image(paths, file, report)
            file.flush()
            os.fsync(fd)
    except LayerError as error:
        # The compiler knows temporaries; the user knows the archive and the layers' digests.
        message = str(error)
        for layer, place in zip(layers, paths, strict=True):
            message = message.replace(place, layer.descriptor.hex[:12])
        raise UfsError(f"{label}: {message}; the image is malformed and was not loaded") from None
    return path


def _publish_layer(workspace: Workspace, layer: Ingested) -> None:
    store = workspace.store.own
    if layer.blob is not None and layer.blob == layer.tar:
        _link(layer.blob, store.blob(layer.descriptor.hex))
    elif layer.blob is not None:
        _move(workspace, layer.blob, store.blob(layer.descriptor.hex))
    if layer.tar is not None:
        _move(workspace, layer.tar, store.layer(layer.diff_id))


def _move(workspace: Workspace, temporary: str, path: str) -> None:
    try:
        workspace.publish(temporary, path)
    except FileNotFoundError:
        # Two images of one archive, or two pulls at once, may share the layer, and the first has published it.
        if not os.path.exists(path):
            raise


def _link(temporary: str, path: str) -> None:
    """An uncompressed blob and its layer are one file: one name for each."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return  # published by somebody else, or stored already: the same content
    except FileNotFoundError:
        return  # shared by two images of this archive


def _key(layer: LayerSource) -> object:
    """Layers with equal keys are brought in once."""
    if layer.descriptor is not None:
        return layer.descriptor.digest, layer.diff_id
    return layer.diff_id


def _distinct(layers: Sequence[LayerSource]) -> Iterator[LayerSource]:
    seen = set()
    for layer in layers:
        if _key(layer) not in seen:
            seen.add(_key(layer))
            yield layer


def added(records: list[Record], loaded: Sequence[Loaded], source: str, named: bool) -> list[Record]:
    """The records with newly loaded images in them. A name that moves leaves its old image without one.

    An image may come with several manifests, compressed in different ways: without a name it is kept once.
    """
    for image in loaded:
        names = list(dict.fromkeys(image.names)) if named else []
        manifest = image.manifest._replace(annotations={}, platform=image.config.platform)
        kept = [record for record in records if not record.name or record.name not in names]
        for record in records:
            if record not in kept and all(record.image != other.image for other in kept):
                kept.append(record._replace(name=""))
        same = [record for record in kept if record.image == image.image]
        if names:
            kept = [record for record in kept if record.name or record not in same]
        elif same:
            kept = [record._replace(source=source) if record in same else record for record in kept]
        else:
            names = [""]
        records = kept + [Record(manifest, name, image.image, source) for name in names]
    return records


@contextmanager
def _full_disk(store: Store) -> Iterator[None]:
    """A full disk says where, and what can be done about it."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        hint = "free some space there, or set UFS_ROOT to a directory on another disk"
        raise UfsError(f"{store.root}: {error.strerror}; {hint}") from None
