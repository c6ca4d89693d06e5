"""Images whose documents refer to each other by digest: the OCI image layout and the `dir:` of skopeo.

Specifications: OCI image-layout.md; github.com/containers/image, docs/containers-transports.5.md ("dir:").
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

from launcher.errors import UfsError
from launcher.image import oci, platforms, reference, typed
from launcher.image.found import Found, LayerSource, check
from launcher.image.oci import Descriptor, Platform
from launcher.image.source import Source, advice, missing, read

_VERSION = re.compile(r"latest|v?[0-9][A-Za-z0-9_.-]*")

Places = Callable[[Descriptor], tuple[str, ...]]
"""Names that the blob of a descriptor may have in a source."""


def in_layout(one: Descriptor) -> tuple[str, ...]:
    """The place of a blob in an OCI layout."""
    return (f"blobs/sha256/{one.hex}",)


def in_dir(one: Descriptor) -> tuple[str, ...]:
    """The places of a blob, or of one of several manifests, in a `dir:`."""
    return (one.hex, f"{one.hex}.manifest.json")


class Documents:
    """Reads images by their descriptors. `wanted` is the platform to choose, this machine's where None."""

    def __init__(self, source: Source, wanted: Platform | None, places: Places) -> None:
        self._source = source
        self._wanted = wanted
        self._places = places

    def listed(self, top: bytes) -> list[Found]:
        """The images that an index.json names. What is none, as a chart, is passed over beside images."""
        what = f"{self._source.label}: index.json"
        entries = [entry for entry in oci.index(typed.load(top, what), what) if not entry.artifact]
        found: dict[str, Found] = {}
        other: oci.NotAnImage | None = None
        for name, group in _groups(entries, self._source.label):
            try:
                image = self.image(group)
            except oci.NotAnImage as error:
                other = error
                continue
            assert image.manifest is not None
            digest = image.manifest[0].digest
            before = found[digest].names if digest in found else []
            found[digest] = image._replace(names=before + ([name] if name else []))
        if other and not found:
            raise other
        return list(found.values())

    def directory(self, top: bytes) -> list[Found]:
        """The image of a `dir:`, whose manifest.json is its manifest, or an index."""
        digest = hashlib.sha256(top).hexdigest()
        return [self.image([Descriptor("", f"sha256:{digest}", len(top))], top)]

    def image(self, group: list[Descriptor], data: bytes | None = None) -> Found:
        """The image of one descriptor, or of those that differ by platform; `data` are the bytes of the only one."""
        what = self._source.label
        one = group[0] if len(group) == 1 else platforms.choose(group, self._wanted, what)
        for _ in range(oci.MAX_NESTING):
            document = f"{what}: manifest {one.hex[:12]}"
            oci.check_media_type(one.media_type, document)
            data = data if data is not None else self._read(one, document)
            value = typed.load(data, document)
            if not oci.is_index(one.media_type, value, document):
                media_type = oci.manifest_type(one.media_type, value)
                plain = one._replace(media_type=media_type, annotations={}, platform=None)
                return self._described((plain, data), value, document)
            one = platforms.choose(oci.index(value, document), self._wanted, what)
            data = None
        raise UfsError(f"{what}: indexes are nested more than {oci.MAX_NESTING} deep; the image is malformed")

    def _described(self, written: tuple[Descriptor, bytes], value: Any, what: str) -> Found:
        manifest = oci.manifest(value, what)
        config_what = f"{self._source.label}: config {manifest.config.hex[:12]}"
        config_bytes = self._read(manifest.config, config_what)
        config = oci.config(typed.load(config_bytes, config_what), config_what)
        check(config, len(manifest.layers), self._wanted, config_what)
        layers = []
        for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True):
            label = f"{self._source.label}: layer {layer.hex[:12]}"
            blob = next(filter(None, map(self._source.find, self._places(layer))), None)
            if blob is not None and blob.size != layer.size:
                raise UfsError(
                    f"{label} has {blob.size} bytes, its manifest says {layer.size}; "
                    "the file is damaged or was cut (truncated), copy it again"
                )
            layers.append(LayerSource(label, blob, diff_id, layer, advice(self._source, "save the whole image again")))
        return Found([], written, config, config_bytes, layers)

    def _read(self, one: Descriptor, what: str) -> bytes:
        """A document by its descriptor, verified."""
        read_all = (read(self._source, place) for place in self._places(one))
        data = next((found for found in read_all if found is not None), None)
        if data is None:
            hint = "save the image for this platform or choose another: --platform"
            raise missing(self._source, f"{what} is not in it", hint)
        if len(data) != one.size:
            raise UfsError(f"{what} has {len(data)} bytes instead of {one.size}; it is damaged or cut, copy it again")
        if hashlib.sha256(data).hexdigest() != one.hex:
            raise UfsError(f"{what} does not match its digest; it is damaged, copy it again")
        return data


def check_version(data: bytes, label: str) -> None:
    """Refuse an `oci-layout` of another version."""
    what = f"{label}: oci-layout"
    version = typed.Fields(typed.load(data, what), what).text("imageLayoutVersion", "1")
    if version.split(".")[0] != "1":
        raise UfsError(f"{what} has version {version[:20]!r}, known is 1; copy the image with skopeo")


def _groups(entries: list[Descriptor], label: str) -> Iterator[tuple[str, list[Descriptor]]]:
    """(name, entries) of each image of an index.json; entries of one title that differ by platform are one image.

    What a tool wrote as title need not be a name: an image has none then, and is still another than its neighbours.
    """
    titled: dict[str, list[Descriptor]] = {}
    for entry in entries:
        title = entry.annotations.get(oci.CONTAINERD_NAME) or entry.annotations.get(oci.REF_NAME, "")
        titled.setdefault(title, []).append(entry)
    for group in titled.values():
        name = _name(group[0], label)
        alone = [entry for entry in group if entry.platform is None]
        built = [entry for entry in group if entry.platform is not None]
        if len({entry.platform for entry in built}) < len(built):
            alone, built = built + alone, []
        for images in filter(None, [built, *([entry] for entry in alone)]):
            yield name, images
            name = ""  # the first has it; the others are not lost


def _name(entry: Descriptor, label: str) -> str:
    """The normalised name that annotations give an entry of index.json, or empty.

    `org.opencontainers.image.ref.name` is a whole name for some tools and a mere tag for others: what looks
    like a version, or could be nothing else, becomes a tag of the archive's own name.
    """
    full = reference.normalised(entry.annotations.get(oci.CONTAINERD_NAME, ""))
    if full:
        return full
    name = entry.annotations.get(oci.REF_NAME, "")
    whole = reference.normalised(name)
    if not reference.is_tag(name) or (whole and not _VERSION.fullmatch(name)):
        return whole
    own = os.path.basename(os.path.abspath(label)).lower()
    own = re.sub(r"\.(tar|oci|tgz|txz|tbz2?|gz|zst|xz|bz2)(?=\.|$)", "", own)
    return reference.normalised(f"{own}:{name}")
