#!/usr/bin/env python3
"""Times `ufs mount` of images of different sizes: it has to cost the same whether they have 1,000 files or 100,000.

    bench/mount.py [--runs 9] [FILES ...]

For each number of files an image is made (a docker-archive of empty files in directories of 100), loaded into a
store of its own, and mounted and unmounted; the sizes alternate in one run. Beside it stands `ufs --version`, which
is what the command costs without mounting. Prints one JSON object: medians and all times in seconds.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

UFS = Path(sys.executable).with_name("ufs")
IN_A_DIRECTORY = 100


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("files", nargs="*", type=int, default=[1_000, 100_000])
    options = parser.parse_args()
    times: dict[str, list[float]] = {"ufs --version": []}
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as name:
        place = Path(name)
        environment = {**os.environ, "UFS_ROOT": str(place / "store")}
        target = place / "merged"
        target.mkdir()
        for count in options.files:
            ufs(environment, "load", str(make_image(place, count)))
        for _ in range(options.runs):
            times["ufs --version"].append(timed(environment, "--version"))
            for count in options.files:
                seconds = timed(environment, "mount", image_name(count), str(target))
                times.setdefault(f"ufs mount, {count} files", []).append(seconds)
                ufs(environment, "umount", str(target))
    medians = {what: statistics.median(found) for what, found in times.items()}
    print(json.dumps({"medians": medians, "seconds": times}, indent=1))


def timed(environment: dict[str, str], *words: str) -> float:
    """Seconds that a command takes."""
    begin = time.perf_counter()
    ufs(environment, *words)
    return round(time.perf_counter() - begin, 4)


def ufs(environment: dict[str, str], *words: str) -> None:
    subprocess.run([UFS, *words], check=True, env=environment, stdout=subprocess.DEVNULL)


def image_name(count: int) -> str:
    return f"files{count}:latest"


def make_image(place: Path, count: int) -> Path:
    """A docker-archive with one layer of that many empty files."""
    layer = place / "layer.tar"
    with tarfile.open(layer, "w") as archive:
        for number in range(count):
            archive.addfile(tarfile.TarInfo(f"d{number // IN_A_DIRECTORY:05}/f{number:07}"))
    digest = hashlib.file_digest(layer.open("rb"), "sha256").hexdigest()
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine),
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    path = place / f"{count}.tar"
    with tarfile.open(path, "w") as archive:
        add(archive, "config.json", json.dumps(config).encode())
        manifest = [{"Config": "config.json", "RepoTags": [image_name(count)], "Layers": ["layer.tar"]}]
        add(archive, "manifest.json", json.dumps(manifest).encode())
        archive.add(layer, "layer.tar")
    layer.unlink()
    return path


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


if __name__ == "__main__":
    main()
