#!/usr/bin/env python3
"""Measures how long other files wait while one is slow: a copy-up of some GiB, and fsync(2) of as much.

    bench/latency.py [--gib 4] [--program ufs-mount]

A lower directory with one large file is mounted. One process looks up names that are not there, never the same, so that
each is one request; first alone, then while another process writes the first byte of the large file (its copy-up), and
then while that writes a GiB into a new file and calls fsync. Prints one JSON object: for each phase how many lookups
there were, and their median, 99th percentile and longest time in milliseconds; and the seconds of the slow call.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

HERE = Path(sys.executable).parent
GIB = 1 << 30
NUMBERS = count()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=int, default=4, help="size of the large lower file")
    parser.add_argument("--program", default=str(HERE / "ufs-mount"), help="a mount program")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as name:
        place = Path(name)
        for part in ("lower", "upper", "work", "merged"):
            (place / part).mkdir()
        fill(place / "lower/large", options.gib)
        words = f"lowerdir={place}/lower,upperdir={place}/upper,workdir={place}/work"
        subprocess.run([options.program, "-o", words, place / "merged"], check=True)
        try:
            print(json.dumps(measured(place / "merged"), indent=1))
        finally:
            subprocess.run(["fusermount3", "-u", place / "merged"], check=True)


def measured(merged: Path) -> dict[str, dict[str, float]]:
    """The three phases."""

    def copy_up() -> None:
        with open(merged / "large", "r+b") as file:
            file.write(b"!")

    def sync() -> None:
        fill(merged / "new", 1)

    return {
        "alone": while_running(merged, lambda: time.sleep(2)),
        "during copy-up": while_running(merged, copy_up),
        "during write and fsync": while_running(merged, sync),
    }


def while_running(merged: Path, slow: Callable[[], None]) -> dict[str, float]:
    """Times of lookups for as long as `slow` runs in a child."""
    begin = time.perf_counter()
    child = os.fork()
    if not child:
        status = 1
        try:
            slow()
            status = 0
        finally:
            os._exit(status)
    times: list[float] = []
    ended = 0
    while not ended:
        before = time.perf_counter()
        (merged / f"no{next(NUMBERS)}").exists()
        times.append((time.perf_counter() - before) * 1000)
        time.sleep(0.0005)
        ended, status = os.waitpid(child, os.WNOHANG)
    if status:
        sys.exit("the slow call failed")
    seconds = time.perf_counter() - begin
    times.sort()
    found = {"median": times[len(times) // 2], "p99": times[len(times) * 99 // 100], "longest": times[-1]}
    return {
        "lookups": len(times),
        **{key: round(value, 3) for key, value in found.items()},
        "seconds": round(seconds, 2),
    }


def fill(path: Path, gib: int) -> None:
    """Write data that is no hole, and bring it to the disk."""
    piece = os.urandom(1 << 20) * 16
    with open(path, "wb", buffering=0) as file:
        for _ in range(gib * GIB // len(piece)):
            file.write(piece)
        os.fsync(file.fileno())


if __name__ == "__main__":
    main()
