"""The tools that build images, each as one function."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path


def run(*argv: str | os.PathLike[str], cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a tool to its end; its stdout. A failure shows what it said."""
    done = subprocess.run(
        argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
    )
    if done.returncode != 0:
        raise AssertionError(f"{argv} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def rootless() -> list[str]:
    """umoci's option for a user who may not change owners."""
    return [] if os.geteuid() == 0 else ["--rootless"]


def new_layout(layout: Path, tag: str) -> str:
    """An OCI layout with an image of no layers; returns umoci's name of the image."""
    image = f"{layout}:{tag}"
    run("umoci", "init", "--layout", layout)
    run("umoci", "new", "--image", image)
    return image


def repack(image: str, change: Callable[[Path], None], bundle: Path) -> None:
    """One more layer: what `change` does to the unpacked root file system. `bundle` is scratch space."""
    run("umoci", "unpack", *rootless(), "--image", image, bundle)
    change(bundle / "rootfs")
    run("umoci", "repack", "--image", image, bundle)
    run("rm", "-rf", bundle)


def add_layer(image: str, tar: Path) -> None:
    """One more layer, this tar as it is."""
    run("umoci", "raw", "add-layer", "--image", image, tar)


def convert(source: str, target: str, *options: str) -> None:
    """skopeo's copy between transports."""
    run("skopeo", "--insecure-policy", "copy", "--quiet", *options, source, target)


def convert_all(layout: Path, tag: str, into: Path) -> None:
    """All forms of an image: layers plain, gzip and zstd in layouts and archives.

    gzip.oci/  gzip.oci.tar  zstd.oci/  zstd.oci.tar  plain.oci/  docker.tar (plain layers, as `docker save`)
    """
    source = f"oci:{layout}:{tag}"
    convert(source, f"oci:{into}/gzip.oci:{tag}")
    convert(source, f"oci-archive:{into}/gzip.oci.tar:{tag}")
    convert(source, f"oci:{into}/zstd.oci:{tag}", "--dest-compress-format", "zstd")
    convert(source, f"oci-archive:{into}/zstd.oci.tar:{tag}", "--dest-compress-format", "zstd")
    convert(source, f"docker-archive:{into}/docker.tar:localhost/{tag}:latest")
    between = f"dir:{into}/dir"  # the one transport that skopeo unpacks layers for
    convert(source, between, "--dest-decompress")
    convert(between, f"oci:{into}/plain.oci:{tag}", "--dest-oci-accept-uncompressed-layers")
    run("rm", "-rf", into / "dir")
