#!/usr/bin/env python3
"""Times `ufs mount` of images of different sizes: it has to cost the same whether they have 1,000 files or a million.

    bench/mount.py [--runs 9] [FILES ...]

For each number of files an image is made (a docker-archive of empty files in directories of 100), loaded into a
store of its own, and mounted and unmounted; the sizes alternate in one run. Beside it stands `ufs --version`, which
is what the command costs without mounting. Prints one JSON object: medians and all times in seconds, and the most
memory that each server had resident in MB (VmHWM; once mounted, and again after a look at one name).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import prctl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.suite import images, subjects

UFS = subjects.BIN / "ufs"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("files", nargs="*", type=int, default=[1_000, 100_000])
    options = parser.parse_args()
    prctl.set_child_subreaper(1)  # the servers are in the background, and their memory is wanted
    times: dict[str, list[float]] = {"ufs --version": []}
    memory: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as name:
        place = Path(name)
        (place / "m").mkdir()
        environment = {**os.environ, "UFS_ROOT": str(place / "store")}
        for count in options.files:
            images.of_empty_files(count, f"files{count}", place / "image.tar")
            times[f"load, {count} files"] = [timed(environment, "load", str(place / "image.tar"))]
        for _ in range(options.runs):
            times["ufs --version"].append(timed(environment, "--version"))
            for count in options.files:
                what = f"mount, {count} files"
                seconds, memory[what] = mounted(place, f"files{count}")
                times.setdefault(what, []).append(seconds)
    medians = {what: statistics.median(found) for what, found in times.items()}
    print(json.dumps({"medians": medians, "MB": memory, "seconds": times}, indent=1))


def timed(environment: dict[str, str], *words: str) -> float:
    """Seconds that a command takes."""
    begin = time.perf_counter()
    subprocess.run([UFS, *words], check=True, env=environment, stdout=subprocess.DEVNULL)
    return round(time.perf_counter() - begin, 4)


def mounted(base: Path, image: str) -> tuple[float, list[float]]:
    """Seconds that mounting takes, and the server's memory then and after a lookup."""
    place = subjects.Place(base, [], ".", False, image)
    begin = time.perf_counter()
    with subjects.Image("ufs-image").mount(place) as mount:
        seconds = round(time.perf_counter() - begin, 4)
        found = [mount.peak_kib() or 0]
        (mount.root / "d00000" / "f0000001").stat()
        found.append(mount.peak_kib() or 0)
    return seconds, [round(kib * 1024 / 1e6, 1) for kib in found]


if __name__ == "__main__":
    main()
