"""`save`: images of the store as an archive that Docker, podman, skopeo and umoci read.

An oci-archive is the store's own blobs and so keeps every digest; a docker-archive (moby, image/spec, "Combined Image
JSON + Filesystem Changeset Format") has uncompressed layers under their diff ids. Both are the same bytes each time.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from typing import IO, Any

from launcher.errors import UfsError
from launcher.image import oci, reference
from launcher.image.load import Progress
from launcher.image.store import Record, Store

FORMATS = ("docker-archive", "oci-archive")


def save(records: Sequence[Record], store: Store, form: str, out: IO[bytes], progress: Progress) -> None:
    """Write images to `out`, which need not be seekable. UfsError, OSError."""
    pieces = list(_docker(records, store) if form == "docker-archive" else _oci(records, store))
    progress.begin("Writing", sum(_size(content) for _, content in pieces))
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for name, content in pieces:
            _add(tar, name, content, progress)


Content = bytes | str
"""Bytes, or the path of a file."""


def _size(content: Content) -> int:
    try:
        return len(content) if isinstance(content, bytes) else os.path.getsize(content)
    except FileNotFoundError:
        raise UfsError(f"{content!s} is missing from the store; ufs fsck --repair") from None


def _add(tar: tarfile.TarFile, name: str, content: Content, progress: Progress) -> None:
    member = tarfile.TarInfo(name)
    member.mode, member.size = 0o644, _size(content)
    if isinstance(content, bytes):
        tar.addfile(member, io.BytesIO(content))
    else:
        with open(content, "rb") as file:
            tar.addfile(member, file)
    progress.advance(member.size)


def _docker(records: Sequence[Record], store: Store) -> Iterator[tuple[str, Content]]:
    entries: dict[str, dict[str, Any]] = {}
    layers: dict[str, str] = {}
    for record in records:
        diff_ids = store.config(record.image).diff_ids
        names = [f"{digits}.tar" for digits in diff_ids]
        layers |= dict(zip(names, map(store.layer, diff_ids), strict=True))
        entry = {"Config": f"{record.image}.json", "RepoTags": [], "Layers": names}
        tags = entries.setdefault(record.image, entry)["RepoTags"]
        if record.name and record.name not in tags and "@" not in record.name:
            tags.append(reference.parse(record.name).familiar)
    yield from ((f"{image}.json", store.blob(image)) for image in entries)
    yield from layers.items()
    yield "manifest.json", json.dumps(list(entries.values())).encode()


def _oci(records: Sequence[Record], store: Store) -> Iterator[tuple[str, Content]]:
    blobs: dict[str, None] = {}
    entries = []
    for record in records:
        manifest = store.manifest(record.manifest.hex)
        found = [record.manifest, manifest.config, *manifest.layers]
        blobs |= dict.fromkeys(descriptor.hex for descriptor in found)
        names = {oci.REF_NAME: _tag(record.name), oci.CONTAINERD_NAME: record.name} if record.name else {}
        entries.append(record.manifest._replace(annotations=names).document())
    yield "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode()
    yield "index.json", json.dumps({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": entries}).encode()
    yield from ((f"blobs/sha256/{digits}", store.blob(digits)) for digits in sorted(blobs))


def _tag(name: str) -> str:
    """The annotation that skopeo and podman look a name up by: the tag, or all of it where there is none."""
    return reference.parse(name).tag or name
