#!/usr/bin/env python3
"""Times `ufs load` against `skopeo copy` to an OCI layout plus `umoci unpack` of the same image.

    bench/load.py [--runs 5] [IMAGE.tar ...]

IMAGE is a docker-archive or oci-archive; without one, images are made from this machine's /usr: five layers,
plain (docker-archive) and gzip (oci-archive); Debian's umoci does not know zstd. Both sides start from an empty
store and alternate in one run. skopeo syncs its blobs to disk and so does `ufs load`; umoci does not sync what it
unpacks. Prints one JSON object: medians and all times in seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

LAYERS = ("include", "lib/python3", "share/doc", "share/perl", "sbin")
UFS = Path(sys.executable).with_name("ufs")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("images", nargs="*", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as name:
        place = Path(name)
        images = options.images or make_images(place)
        print(json.dumps({"runs": options.runs, "images": [compare(i, place, options.runs) for i in images]}, indent=1))


def compare(image: Path, place: Path, runs: int) -> dict[str, object]:
    """Both sides alternately, each from nothing."""
    store, peer = place / "store", place / "peer"
    sides: dict[str, Callable[[], None]] = {
        "ufs load": lambda: ufs(image, store),
        "skopeo copy + umoci unpack": lambda: skopeo_and_umoci(image, peer),
    }
    times: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(runs):
        for side, act in sides.items():
            shutil.rmtree(store, ignore_errors=True)
            shutil.rmtree(peer, ignore_errors=True)
            os.sync()
            begin = time.perf_counter()
            act()
            times[side].append(round(time.perf_counter() - begin, 3))
    medians = {side: statistics.median(found) for side, found in times.items()}
    first, second = medians.values()
    return {
        "image": image.name,
        "bytes": image.stat().st_size,
        "medians": medians,
        "ratio": round(first / second, 3),
        "times": times,
    }


def ufs(image: Path, store: Path) -> None:
    """Load into a new store."""
    run(UFS, "load", "-q", image, env={**os.environ, "UFS_ROOT": str(store)})


def skopeo_and_umoci(image: Path, peer: Path) -> None:
    """What the same takes with other people's tools."""
    peer.mkdir()
    run("skopeo", "copy", "--quiet", f"{transport(image)}:{image}", f"oci:{peer}/layout:image")
    run(
        "umoci", "unpack", "--image", f"{peer}/layout:image", peer / "bundle", *(["--rootless"] if os.geteuid() else [])
    )


def transport(image: Path) -> str:
    """Which kind of archive it is, by what is in it."""
    members = subprocess.run(["tar", "-tf", image], check=True, stdout=subprocess.PIPE, text=True).stdout
    return "oci-archive" if "oci-layout" in members else "docker-archive"


def make_images(place: Path) -> list[Path]:
    """One image of five layers from /usr, with plain and with gzip layers."""
    layout = place / "made"
    run("umoci", "init", "--layout", layout)
    run("umoci", "new", "--image", f"{layout}:image")
    for part in LAYERS:
        layer = place / "layer.tar"
        exclude = ["--warning=none", "--sort=name"]
        with open(layer, "wb") as file:
            tar = subprocess.Popen(["tar", "-C", "/", *exclude, "-c", f"usr/{part}"], stdout=subprocess.PIPE)
            assert tar.stdout is not None
            shutil.copyfileobj(tar.stdout, file, 1 << 20)
            tar.stdout.close()
            if tar.wait() > 1:
                raise RuntimeError(f"tar ended with {tar.returncode}")
        run("umoci", "raw", "add-layer", "--image", f"{layout}:image", layer)
        layer.unlink()
    plain, gzip = place / "plain.tar", place / "gzip.tar"
    source = f"oci:{layout}:image"
    run("skopeo", "copy", "--quiet", source, f"docker-archive:{plain}:bench:plain")
    run("skopeo", "copy", "--quiet", source, f"oci-archive:{gzip}:bench:gzip")
    shutil.rmtree(layout)
    return [plain, gzip]


def run(*command: str | Path, env: dict[str, str] | None = None) -> None:
    """Run to a good end; what it prints shows only when it fails."""
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}: {done.stdout}")


if __name__ == "__main__":
    main()
