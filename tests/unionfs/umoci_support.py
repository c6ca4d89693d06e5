"""Images of layers that are written by hand, and what `umoci unpack` (as root) makes of them."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.unionfs.compiled_image_support import Item, pack

_TYPE = "application/vnd.oci.image."


def write_layout(layout: Path, layers: Iterable[Iterable[Item]]) -> None:
    """An OCI image layout with one image, tag "image", over uncompressed layers (image-spec, image-layout.md)."""
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)

    def blob(kind: str, data: bytes) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": _TYPE + kind, "digest": f"sha256:{digest}", "size": len(data)}

    def document(kind: str, content: dict[str, object]) -> dict[str, object]:
        return blob(kind, json.dumps(content).encode())

    tars = [blob("layer.v1.tar", pack(layer)) for layer in layers]
    rootfs = {"type": "layers", "diff_ids": [tar["digest"] for tar in tars]}
    config = document("config.v1+json", {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs})
    manifest = document("manifest.v1+json", {"schemaVersion": 2, "config": config, "layers": tars})
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "image"}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def unpack(scratch: Path, layers: Iterable[Iterable[Item]]) -> tuple[Path, str]:
    """The root file system that umoci unpacks, and what it says when it refuses (otherwise "")."""
    write_layout(scratch / "layout", layers)
    command = ["umoci", "unpack", "--image", f"{scratch / 'layout'}:image", scratch / "bundle"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return scratch / "bundle/rootfs", done.stderr.strip() if done.returncode else ""
