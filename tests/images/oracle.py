"""What an image contains, by umoci's word: it unpacks without anything of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.images import Images, tools
from tests.support.snapshot import snapshot


def unpacked(images: Images, name: str, scratch: Path) -> dict[str, dict[str, Any]]:
    """The snapshot of umoci's unpacked copy of an image, from its gzip form (umoci 0.4 knows no zstd)."""
    bundle = scratch / name
    image = f"{images.built(name)}/gzip.oci:{name}"
    tools.run("umoci", "unpack", *tools.rootless(), "--image", image, bundle)
    found = snapshot(str(bundle / "rootfs"))
    tools.run("rm", "-rf", bundle)
    return found


def layer_blobs(layout: Path) -> list[Path]:
    """The blobs of the layers of a layout's only image, the lowest first."""
    blobs = layout / "blobs"
    index = json.loads((layout / "index.json").read_text())
    manifest = json.loads(_blob(blobs, index["manifests"][0]["digest"]).read_text())
    return [_blob(blobs, layer["digest"]) for layer in manifest["layers"]]


def _blob(blobs: Path, digest: str) -> Path:
    algorithm, value = digest.split(":")
    return blobs / algorithm / value
