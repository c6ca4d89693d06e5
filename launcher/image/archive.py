"""What images an archive or directory holds: `docker save`'s manifest.json, an OCI image layout, a `dir:` of skopeo.

Specifications: moby, image/spec ("Combined Image JSON + Filesystem Changeset Format"); see `layout` for the others.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, NamedTuple

from launcher.errors import UfsError
from launcher.image import layout, looks, oci, reference, typed
from launcher.image.found import Found, LayerSource, check
from launcher.image.oci import Platform
from launcher.image.source import Source, missing, read

_DIGEST_NAME = re.compile(r"(?:.*/)?(?:sha256:)?([0-9a-f]{64})(?:\.json)?")
"""A config's name in a docker-archive that is its digest."""


class _Entry(NamedTuple):
    """One image of a manifest.json."""

    config: str
    names: list[str]
    layers: list[str]


def images(source: Source, wanted: Platform | None) -> list[Found]:
    """All images of a source, of each the one for `wanted` (this machine where None)."""
    data = read(source, "manifest.json")
    top = read(source, "index.json")
    what = f"{source.label}: manifest.json"
    document = typed.load(data, what) if data is not None else None
    if data is not None and isinstance(document, dict):
        if top is None:
            return layout.Documents(source, wanted, layout.in_dir).directory(data)
        document = None  # a stranger beside an index.json, which says it all
    entries = _entries(document, what) if document is not None else []
    found: list[Found] = []
    if top is not None:
        version = read(source, "oci-layout")
        if version is not None:
            layout.check_version(version, source.label)
        found = layout.Documents(source, wanted, layout.in_layout).listed(top)
    for entry in entries:
        found = _with(found, entry, source, wanted)
    if not found:
        raise _nothing(source, top, document)
    return found


def _entries(document: Any, what: str) -> list[_Entry]:
    """The images of a manifest.json; several entries of one config have all their names."""
    if not isinstance(document, list):
        raise typed.BadDocument(f"{what} is not a list; the archive is malformed")
    entries: dict[tuple[str, tuple[str, ...]], _Entry] = {}
    for item in document:
        fields = typed.Fields(item, what)
        names = list(filter(None, map(reference.normalised, fields.strings_of("RepoTags"))))
        config, layers = fields.text("Config"), fields.texts("Layers")
        entry = entries.setdefault((config, tuple(layers)), _Entry(config, [], layers))
        entry.names.extend(name for name in names if name not in entry.names)
    return list(entries.values())


def _with(found: list[Found], entry: _Entry, source: Source, wanted: Platform | None) -> list[Found]:
    """The images with one of manifest.json. Beside a layout, as docker save writes since 25, it has the names."""
    stated = _DIGEST_NAME.fullmatch(entry.config)
    digits = stated[1] if stated else hashlib.sha256(read(source, entry.config) or b"").hexdigest()
    if all(image.image != digits for image in found):
        return [*found, _docker(source, entry, wanted)]
    return [image._replace(names=entry.names or image.names) if image.image == digits else image for image in found]


def _docker(source: Source, entry: _Entry, wanted: Platform | None) -> Found:
    """One image of a docker-archive."""
    what = f"{source.label}: manifest.json"
    config_bytes = read(source, entry.config)
    if config_bytes is None:
        raise missing(source, f"{what}: config {entry.config[:90]!r} is not in the archive", "save the image again")
    stated = _DIGEST_NAME.fullmatch(entry.config)
    if stated and hashlib.sha256(config_bytes).hexdigest() != stated[1]:
        raise UfsError(f"{source.label}: config {stated[1][:12]} does not match its digest; save it again")
    label = f"{source.label}: config {entry.config[:90]}"
    config = oci.config(typed.load(config_bytes, label), label)
    check(config, len(entry.layers), wanted, label)
    layers = []
    for path, diff_id in zip(entry.layers, config.diff_ids, strict=True):
        blob = source.find(path)
        if blob is None:
            raise missing(source, f"{what}: layer {path[:90]!r} is not in the archive", "save the image again")
        layers.append(LayerSource(f"{source.label}: layer {path[:90]}", blob, diff_id, None))
    return Found(entry.names, None, config, config_bytes, layers)


def _nothing(source: Source, index: bytes | None, document: Any) -> UfsError:
    """Why there is no image, and what this looks like."""
    label = source.label
    if index is not None or document is not None:
        return UfsError(f"{label}: {'manifest' if index is None else 'index'}.json names no image")
    if meaning := looks.members(source.top(), label, source.is_directory):
        return UfsError(f"{label} is {meaning}")
    hint = "make one with docker save, podman save or skopeo copy"
    return missing(source, f"{label} holds no image: neither manifest.json nor index.json is in it", hint)
