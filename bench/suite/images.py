"""Images for the bench, made without anybody's tools but tar: a docker-archive over directories or of given layers."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

from bench.suite import content
from bench.suite.sizes import Sizes

_IN_A_DIRECTORY = 100
_LAYERS = 5
_MEAN = 20_000
PROGRAM = "/bin/busybox"


def of_directories(layers: Sequence[Path], name: str, path: Path) -> None:
    """An image whose layers are these directories, topmost first."""
    archives = []
    for number, layer in enumerate(reversed(layers)):
        archives.append(path.with_name(f"{path.name}.{number}"))
        subprocess.run(["tar", "-cf", archives[-1], "-C", layer, "."], check=True)
    archive(archives, name, path)


def of_empty_files(count: int, name: str, path: Path) -> None:
    """An image of that many empty files, a hundred in a directory."""
    layer = path.with_name(f"{path.name}.0")
    with tarfile.open(layer, "w") as made:
        for number in range(count):
            made.addfile(tarfile.TarInfo(f"d{number // _IN_A_DIRECTORY:05}/f{number:07}"))
    archive([layer], name, path)


def of_a_system(sizes: Sizes, name: str, path: Path) -> None:
    """An image of `image_mib` MiB in five layers, with busybox as /bin/true and others."""
    program = shutil.which("busybox")
    if program is None:
        raise FileNotFoundError("busybox (busybox-static) is not installed")
    base = path.with_name(f"{path.name}.tree")
    layers = [base / str(number) for number in range(_LAYERS)]
    for number, layer in enumerate(layers):
        (layer / "usr" / str(number)).mkdir(parents=True)
        content.spread(layer / "usr" / str(number), sizes.image_mib * (1 << 20) // _LAYERS // _MEAN, mean=_MEAN)
    (layers[-1] / "bin").mkdir()
    shutil.copy(program, str(layers[-1]) + PROGRAM)
    for applet in ("true", "echo", "sh"):
        (layers[-1] / "bin" / applet).symlink_to("busybox")
    of_directories(layers, name, path)
    shutil.rmtree(base)


def archive(layers: Sequence[Path], name: str, path: Path) -> None:
    """A docker-archive at `path` of these tars, lowest first, which are removed."""
    digests = [hashlib.file_digest(layer.open("rb"), "sha256").hexdigest() for layer in layers]
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine),
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
    }
    names = [f"{number}.tar" for number in range(len(layers))]
    manifest = [{"Config": "config.json", "RepoTags": [f"{name}:latest"], "Layers": names}]
    with tarfile.open(path, "w") as made:
        _add(made, "config.json", config)
        _add(made, "manifest.json", manifest)
        for layer, inside in zip(layers, names, strict=True):
            made.add(layer, inside)
            layer.unlink()


def _add(made: tarfile.TarFile, name: str, document: object) -> None:
    data = json.dumps(document).encode()
    member = tarfile.TarInfo(name)
    member.size = len(data)
    made.addfile(member, io.BytesIO(data))
