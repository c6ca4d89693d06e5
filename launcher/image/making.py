"""A new image of a layer that was made here: alone, or on the layers of another image."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime
from typing import Any, NamedTuple

from launcher.errors import UfsError
from launcher.image import load, oci, reference, typed
from launcher.image.found import Found, LayerSource
from launcher.image.load import Loaded, Progress
from launcher.image.source import Blob
from launcher.image.store import Record, Store
from launcher.image.workspace import Workspace, change_index

_KEPT = ("architecture", "os", "variant", "os.version", "os.features", "config", "rootfs", "history")
"""Of a base's configuration; the rest says how that one was made."""


class Written(NamedTuple):
    """How the new image came to be: the fields of its step in the history (config.md), and its author."""

    created_by: str
    comment: str = ""
    author: str = ""


def base_of(store: Store, image: str) -> tuple[Record, dict[str, Any]]:
    """An image's entry and its configuration to build upon, as a document."""
    record = next(record for record in store.records() if record.image == image)
    document = store.document(image)
    return record, {key: value for key, value in document.items() if key in _KEPT}


def checked_name(name: str | None) -> list[str]:
    """The normalised name for a new image, as a list; none where none is wanted. UfsError."""
    if not name:
        return []
    wanted = reference.parse(name)
    if wanted.digest:
        raise UfsError(f"{name!r}: an image gets a name and a tag; its digest is what it is")
    return [str(wanted)]


def publish(
    workspace: Workspace,
    layer: str,
    document: dict[str, Any],
    written: Written,
    names: list[str],
    base: Record | None = None,
    progress: Progress | None = None,
) -> Loaded:
    """Add an image to the store. `layer` is an uncompressed tar in the workspace, and is moved; `document` the
    configuration of `base` with what shall be different.

    With a base the index is not made now: that costs time by the size of the whole image, and the first use makes it.
    """
    store = workspace.store
    diff_id = _digest(layer)
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    step = {"created": now, "created_by": written.created_by, "comment": written.comment, "author": written.author}
    rootfs = document.get("rootfs") or {}
    document |= {
        "created": now,
        "rootfs": {"type": "layers", "diff_ids": [*(rootfs.get("diff_ids") or []), f"sha256:{diff_id}"]},
        "history": [*(document.get("history") or []), {key: value for key, value in step.items() if value}],
    }
    if written.author:
        document["author"] = written.author
    data = json.dumps(document).encode()
    config = oci.config(typed.load(data, "the new configuration"), "the new configuration")
    layers = []
    if base is not None:
        manifest = store.manifest(base.manifest.hex)
        for descriptor, known in zip(manifest.layers, config.diff_ids, strict=False):
            label = f"layer {descriptor.hex[:12]} of image {base.image[:12]}"
            layers.append(LayerSource(label, None, known, descriptor._replace(annotations={}), "load that image again"))
    fd = os.open(layer, os.O_RDWR | os.O_CLOEXEC)
    try:
        blob = Blob(fd, 0, os.fstat(fd).st_size)
        blob.path = layer
        layers.append(LayerSource("the new layer", blob, diff_id, None))
        found = Found(names, None, config, data, layers)
        loaded = load.bring([found], workspace, progress or load.Silent(), "the new image", lazily=base is not None)
    finally:
        os.close(fd)
    change_index(store, lambda records: load.added(records, loaded, "", True))
    return loaded[0]


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
