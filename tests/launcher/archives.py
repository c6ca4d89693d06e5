"""Image archives made by hand, right ones and wrong ones: every document and blob can be replaced."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import zstandard

LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    "+gzip": lambda data: gzip.compress(data, mtime=0),
    "+zstd": lambda data: zstandard.ZstdCompressor().compress(data),
}

WHOLE: dict[str, Callable[[bytes], bytes]] = {
    "gzip": COMPRESS["+gzip"],
    "zstd": COMPRESS["+zstd"],
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}
"""Compression of an archive as a whole, or of a layer of a docker-archive."""

REF_NAME = "org.opencontainers.image.ref.name"

Files = dict[str, bytes]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def layer(files: Mapping[str, str], links: Mapping[str, str] | None = None) -> bytes:
    """An uncompressed layer tar; `links` are symbolic ones."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content.encode())
            tar.addfile(info, io.BytesIO(content.encode()))
    return out.getvalue()


FIRST = layer({"etc/one": "1", "etc/shared": "first"})
SECOND = layer({"etc/two": "2", "etc/shared": "second"})


def dumps(value: Any) -> bytes:
    return json.dumps(value).encode()


def config(layers: list[bytes], **more: Any) -> bytes:
    """A config of uncompressed `layers`."""
    diff_ids = ["sha256:" + digest(data) for data in layers]
    inner = {"Cmd": ["/bin/sh"], "Env": ["A=b"]}
    return dumps(
        {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids}, "config": inner}
        | more
    )


def blob(files: Files, data: bytes, media_type: str = "", **more: Any) -> dict[str, Any]:
    """Put a blob into a layout; its descriptor."""
    files[f"blobs/sha256/{digest(data)}"] = data
    return {"mediaType": media_type, "digest": "sha256:" + digest(data), "size": len(data)} | more


def image(
    files: Files, layers: list[bytes], compression: str = "", manifest: Any = None, **more: Any
) -> dict[str, Any]:
    """Put an image into a layout; the descriptor of its manifest. `manifest` changes it before it is written."""
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": blob(files, config(layers, **more), CONFIG_TYPE),
        "layers": [blob(files, COMPRESS[compression](data), LAYER_TYPE + compression) for data in layers],
    }
    if manifest:
        manifest(document)
    return blob(files, dumps(document), MANIFEST_TYPE)


def named(descriptor: dict[str, Any], name: str) -> dict[str, Any]:
    return descriptor | {"annotations": {"org.opencontainers.image.ref.name": name}}


def layout(files: Files, entries: list[dict[str, Any]]) -> Files:
    """The files of a layout with `entries` in its index.json."""
    files["oci-layout"] = dumps({"imageLayoutVersion": "1.0.0"})
    files["index.json"] = dumps({"schemaVersion": 2, "manifests": entries})
    return files


def oci(compression: str = "", name: str = "box:1", manifest: Any = None) -> Files:
    """A layout of one image with two layers."""
    files: Files = {}
    return layout(files, [named(image(files, [FIRST, SECOND], compression, manifest), name)])


def docker(compression: str = "", tags: tuple[str, ...] = ("box:1",), last: bytes = SECOND) -> Files:
    """What `docker save` writes."""
    data = config([FIRST, last])
    entry = {"Config": f"{digest(data)}.json", "RepoTags": list(tags), "Layers": ["a/layer.tar", "b/layer.tar"]}
    return {
        entry["Config"]: data,
        "a/layer.tar": COMPRESS[compression](FIRST),
        "b/layer.tar": COMPRESS[compression](last),
        "manifest.json": dumps([entry]),
    }


def tar(files: Files, links: Mapping[str, str] | None = None) -> bytes:
    """An archive of files and symbolic links."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return out.getvalue()


def write(files: Files, directory: Path) -> Path:
    """A layout directory."""
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return directory
