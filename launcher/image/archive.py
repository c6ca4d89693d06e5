"""What images an archive or layout holds: `docker save`'s manifest.json and the OCI image layout.

Specifications: OCI image-layout.md; moby, image/spec ("Combined Image JSON + Filesystem Changeset Format").
"""

from __future__ import annotations

import hashlib
import os
import re
from typing import Any, NamedTuple

from launcher.errors import UfsError
from launcher.image import oci, platforms, reference
from launcher.image.oci import Descriptor, ImageConfig, Platform
from launcher.image.source import Bytes, Source, read

_MAX_LAYERS = 1000
_MAX_NESTING = 4
_DIGITS = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"latest|v?[0-9][A-Za-z0-9_.-]*")


class LayerSource(NamedTuple):
    """One layer in a source. `descriptor` is None in docker-archives, which state the diff id only."""

    label: str
    blob: Bytes | None  # None: the source lacks it, so the store must have it
    diff_id: str
    descriptor: Descriptor | None


class Found(NamedTuple):
    """One image in a source, its documents checked; the layers are not read yet.

    `manifest` and its bytes are None in docker-archives: it is written once the layers' digests are known.
    """

    names: list[str]
    manifest: tuple[Descriptor, bytes] | None
    config: ImageConfig
    config_bytes: bytes
    layers: list[LayerSource]

    @property
    def image(self) -> str:
        """The image id."""
        return hashlib.sha256(self.config_bytes).hexdigest()


def images(source: Source, wanted: Platform | None) -> list[Found]:
    """All images of a source, of each the one for `wanted` (this machine where None)."""
    repositories = read(source, "manifest.json")
    layout = read(source, "oci-layout")
    top = read(source, "index.json")
    if layout is not None and top is not None:
        _check_layout(layout, source.label)
        return _Layout(source, wanted, _repository_tags(repositories, source.label)).images(top)
    if repositories is not None:
        return _docker(source, repositories, wanted)
    raise UfsError(
        f"{source.label} holds no image: neither manifest.json nor oci-layout and index.json is in it; "
        "make one with docker save, podman save or skopeo copy"
    )


class _Layout:
    """Reading an OCI image layout."""

    def __init__(self, source: Source, wanted: Platform | None, tags: dict[str, list[str]]) -> None:
        self._source = source
        self._wanted = wanted
        self._tags = tags

    def images(self, top: bytes) -> list[Found]:
        what = f"{self._source.label}: index.json"
        entries = [entry for entry in oci.index(oci.load(top, what), what) if not entry.artifact]
        groups: dict[str, list[Descriptor]] = {}
        for entry in entries:
            # Entries of one name, or all nameless ones, that differ by platform are one image.
            key = _name(entry, self._source.label) or ("" if entry.platform else entry.digest)
            groups.setdefault(key, []).append(entry)
        if not groups:
            raise UfsError(f"{what} names no image")
        found: dict[str, Found] = {}
        for key, group in groups.items():
            one = self._choose(group, self._source.label)
            names = [key] if key and ":" in key and not key.startswith("sha256:") else []
            image = self._image(one)
            names = names or self._tags.get(image.image, [])
            before = found.get(one.digest)
            found[one.digest] = image._replace(names=(before.names if before else []) + names)
        return list(found.values())

    def _choose(self, group: list[Descriptor], what: str) -> Descriptor:
        one = group[0] if len(group) == 1 else platforms.choose(group, self._wanted, what)
        for _ in range(_MAX_NESTING):
            if one.media_type not in oci.INDEX_TYPES:
                return one
            document = f"{what}: index {one.hex[:12]}"
            inner = oci.index(oci.load(self._read(one, document), document), document)
            one = platforms.choose(inner, self._wanted, what)
        raise UfsError(f"{what}: indexes are nested more than {_MAX_NESTING} deep; the image is malformed")

    def _image(self, one: Descriptor) -> Found:
        what = f"{self._source.label}: manifest {one.hex[:12]}"
        if one.media_type not in oci.MANIFEST_TYPES:
            raise UfsError(f"{what}: unknown media type {one.media_type[:90]!r}; is it an image?")
        data = self._read(one, what)
        manifest = oci.manifest(oci.load(data, what), what)
        config_what = f"{self._source.label}: config {manifest.config.hex[:12]}"
        config_bytes = self._read(manifest.config, config_what)
        config = oci.config(oci.load(config_bytes, config_what), config_what)
        check(config, len(manifest.layers), self._wanted, config_what)
        layers = []
        for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True):
            label = f"{self._source.label}: layer {layer.hex[:12]}"
            blob = self._source.find(_path(layer))
            if blob is not None and blob.size != layer.size:
                raise UfsError(
                    f"{label} has {blob.size} bytes, its manifest says {layer.size}; "
                    "the file is damaged or truncated, copy it again"
                )
            layers.append(LayerSource(label, blob, diff_id, layer))
        plain = one._replace(annotations={}, platform=None)
        return Found([], (plain, data), config, config_bytes, layers)

    def _read(self, one: Descriptor, what: str) -> bytes:
        """A document by its descriptor, verified."""
        data = read(self._source, _path(one))
        if data is None:
            raise UfsError(f"{what} is not in it; save the image for this platform or choose another: --platform")
        if len(data) != one.size:
            raise UfsError(f"{what} has {len(data)} bytes instead of {one.size}; it is damaged, copy it again")
        if hashlib.sha256(data).hexdigest() != one.hex:
            raise UfsError(f"{what} does not match its digest; it is damaged, copy it again")
        return data


def _docker(source: Source, data: bytes, wanted: Platform | None) -> list[Found]:
    """The images of a docker-archive."""
    what = f"{source.label}: manifest.json"
    entries = _entries(data, what)
    if not entries:
        raise UfsError(f"{what} names no image")
    found = []
    for entry in entries:
        fields = oci.Fields(entry, what)
        name = fields.text("Config")
        config_bytes = read(source, name)
        if config_bytes is None:
            raise UfsError(f"{what}: config {name[:90]!r} is not in the archive; save the image again")
        stated = _DIGITS.search(name)
        if stated and hashlib.sha256(config_bytes).hexdigest() != stated[0]:
            raise UfsError(f"{source.label}: config {stated[0][:12]} does not match its digest; save it again")
        label = f"{source.label}: config {name[:90]}"
        config = oci.config(oci.load(config_bytes, label), label)
        paths = fields.texts("Layers")
        check(config, len(paths), wanted, label)
        layers = []
        for path, diff_id in zip(paths, config.diff_ids, strict=True):
            blob = source.find(path)
            if blob is None:
                raise UfsError(f"{what}: layer {path[:90]!r} is not in the archive; save the image again")
            layers.append(LayerSource(f"{source.label}: layer {path[:90]}", blob, diff_id, None))
        names = [str(reference.parse(tag)) for tag in fields.texts("RepoTags")]
        found.append(Found(names, None, config, config_bytes, layers))
    return found


def _entries(data: bytes, what: str) -> list[Any]:
    value = oci.load(data, what)
    if not isinstance(value, list):
        raise oci.BadDocument(f"{what} is not a list; the archive is malformed")
    return value


def _repository_tags(data: bytes | None, label: str) -> dict[str, list[str]]:
    """Image id to names, from the manifest.json that newer versions of `docker save` put beside a layout."""
    tags: dict[str, list[str]] = {}
    what = f"{label}: manifest.json"
    for entry in _entries(data, what) if data is not None else []:
        fields = oci.Fields(entry, what)
        digits = _DIGITS.search(fields.text("Config", ""))
        if digits:
            tags[digits[0]] = [str(reference.parse(tag)) for tag in fields.texts("RepoTags")]
    return tags


def _check_layout(data: bytes, label: str) -> None:
    what = f"{label}: oci-layout"
    version = oci.Fields(oci.load(data, what), what).text("imageLayoutVersion", "")
    if version.split(".")[0] != "1":
        raise UfsError(f"{what} has version {version[:20]!r}, known is 1; copy the image with skopeo")


def check(config: ImageConfig, layers: int, wanted: Platform | None, what: str) -> None:
    if len(config.diff_ids) != layers:
        raise UfsError(f"{what} has {len(config.diff_ids)} diff ids for {layers} layers; the image is malformed")
    if not 0 < layers <= _MAX_LAYERS:
        raise UfsError(f"{what}: an image has 1 to {_MAX_LAYERS} layers, this one {layers}")
    if wanted is not None and not platforms.matches(wanted, config.platform):
        raise UfsError(f"{what} is for {config.platform}, not {wanted}; leave --platform out to load it")


def _path(one: Descriptor) -> str:
    return f"blobs/sha256/{one.hex}"


def _name(entry: Descriptor, label: str) -> str:
    """The normalised name that annotations give an entry of index.json, or empty.

    `org.opencontainers.image.ref.name` is a whole name for some tools and a mere tag for others: what looks
    like a version becomes a tag of the archive's own name.
    """
    full = entry.annotations.get(oci.CONTAINERD_NAME)
    if full:
        return str(reference.parse(full))
    name = entry.annotations.get(oci.REF_NAME, "")
    if _VERSION.fullmatch(name):
        own = os.path.basename(os.path.abspath(label)).lower()
        own = re.sub(r"\.(tar|oci|tgz|gz|zst)(?=\.|$)", "", own)
        try:
            return str(reference.parse(f"{own}:{name}"))
        except UfsError:  # the file is called what no image may be: then the image has no name
            return ""
    return str(reference.parse(name)) if name else ""
