#!/usr/bin/env python3
"""Times `ufs-run --rm IMAGE true` against other ways to start a command in an image, as the calling user.

    bench/launch.py [--runs 15] IMAGE.tar

IMAGE is a docker-archive with a `true`, loaded before by each. Beside ufs stand `podman run --rm` on fuse-overlayfs
(without cgroups and with the host's network, as ufs-run has it), and `python3 -c pass` and `ufs --version`, which are
what a start costs that does nothing. The subjects alternate in one run. What is not there, or refuses to start, is
named on stderr and left out. Prints one JSON object: medians and all times in seconds.
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
from collections.abc import Iterator
from pathlib import Path

UFS = Path(sys.executable).with_name("ufs")
UFS_RUN = Path(sys.executable).with_name("ufs-run")
# Machines that forbid raising limits, and hybrid cgroup mounts, which crun refuses, would stop podman.
PODMAN_RUN = ("run", "--rm", "--network=host", "--cgroups=disabled", "--ulimit=nofile=1024:1024",
              "--ulimit=nproc=1024:1024")  # fmt: skip
WITHOUT_HYBRID_CGROUPS = 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"'


class Subject:
    """A command to time, in its own environment."""

    def __init__(self, name: str, command: tuple[str, ...], environment: dict[str, str]) -> None:
        self.name = name
        self.command = command
        self.environment = {**os.environ, **environment}
        self.seconds: list[float] = []

    def once(self) -> float:
        begin = time.perf_counter()
        subprocess.run(self.command, check=True, env=self.environment, stdout=subprocess.DEVNULL, cwd="/")
        return round(time.perf_counter() - begin, 4)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("image", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as name:
        found = list(subjects(Path(name), options.image.absolute()))
        for subject in found:
            subject.once()
        for _ in range(options.runs):
            for subject in found:
                subject.seconds.append(subject.once())
        shutil.rmtree(Path(name) / "podman", ignore_errors=True)
    medians = {subject.name: statistics.median(subject.seconds) for subject in found}
    print(json.dumps({"medians": medians, "seconds": {s.name: s.seconds for s in found}}, indent=1))


def subjects(place: Path, image: Path) -> Iterator[Subject]:
    yield Subject("python3 -c pass", (sys.executable, "-c", "pass"), {})
    yield Subject("ufs --version", (str(UFS), "--version"), {})
    store = {"UFS_ROOT": str(place / "store")}
    loaded = subprocess.run([UFS, "load", "-q", image], check=True, env={**os.environ, **store}, stdout=subprocess.PIPE)
    digest = loaded.stdout.decode().split()[-1]
    yield Subject("ufs-run --rm IMAGE true", (str(UFS_RUN), "--rm", digest, "true"), store)
    try:
        yield podman(place / "podman", image)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        print(f"bench/launch.py: without podman: {error}", file=sys.stderr)


def podman(place: Path, image: Path) -> Subject:
    """Podman with a storage of its own below `place`."""
    place.mkdir()
    conf = place / "storage.conf"
    conf.write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{place}/graph"\nrunroot = "{place}/run"\n'
        '[storage.options.overlay]\nmount_program = "/usr/bin/fuse-overlayfs"\n'
    )
    environment = {"CONTAINERS_STORAGE_CONF": str(conf), "XDG_RUNTIME_DIR": str(place)}
    wrapper: tuple[str, ...] = ()
    if os.geteuid() == 0 and os.path.ismount("/sys/fs/cgroup/unified"):
        wrapper = ("unshare", "--mount", "sh", "-c", WITHOUT_HYBRID_CGROUPS, "sh")
    load = subprocess.run(
        [*wrapper, "podman", "load", "--quiet", "--input", image], check=True, env={**os.environ, **environment},
        stdout=subprocess.PIPE,
    )  # fmt: skip
    name = load.stdout.decode().split()[-1]
    subject = Subject("podman run --rm IMAGE true", (*wrapper, "podman", *PODMAN_RUN, name, "true"), environment)
    subject.once()
    return subject


if __name__ == "__main__":
    main()
