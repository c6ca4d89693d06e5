"""The private directory that a run lives in, and which file system that is on."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.suite.sizes import Sizes

_LIKELY = ("/dev/shm", "/run/user/{uid}", "/tmp", "/var/tmp")


class NoRoom(Exception):
    """Nowhere is enough room; the message says how much is needed."""


@contextmanager
def area(sizes: Sizes, place: str | None) -> Iterator[Path]:
    """A new directory below `place`, or on a tmpfs with room enough, or else on a disk. Gone afterwards."""
    above = place or _find(sizes)
    path = Path(tempfile.mkdtemp(prefix="ufs-bench-", dir=above)).absolute()
    try:
        print(f"bench: in {path}, which is on {kind(path)}", file=sys.stderr)
        for name in ("c", "r", "home", "tmp"):
            (path / name).mkdir()
        yield path
    finally:
        remove(path)


def kind(path: Path) -> str:
    """The type of the file system, as /proc/self/mountinfo has it; proc(5)."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    found = "an unknown file system"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            if before.split()[2] == wanted:
                found = after.split()[0]
    return found


def _find(sizes: Sizes) -> str:
    """A tmpfs if possible: ext4 slows the making of files for a minute after many were removed, whoever makes them."""
    places = [name.format(uid=os.getuid()) for name in (os.environ.get("TMPDIR", "/tmp"), *_LIKELY)]
    roomy = [name for name in places if os.access(name, os.W_OK | os.X_OK) and _free_mib(name) > sizes.needed_mib]
    for name in roomy:
        if kind(Path(name)) == "tmpfs":
            return name
    if not roomy:
        raise NoRoom(f"none of {', '.join(places)} has {sizes.needed_mib} MiB of room; name a directory with --place")
    return roomy[-1]


def _free_mib(name: str) -> int:
    """Free space; of a tmpfs not more than the memory that is left."""
    status = os.statvfs(name)
    free = status.f_bavail * status.f_frsize >> 20
    if kind(Path(name)) == "tmpfs":
        with open("/proc/meminfo", encoding="ascii") as file:
            available = next(int(line.split()[1]) >> 10 for line in file if line.startswith("MemAvailable:"))
        free = min(free, available)
    return free


def remove(path: Path) -> None:
    """Remove a tree, also where a directory has no permissions: fuse-overlayfs and overlayfs make such ones."""
    for directory, names, _ in os.walk(path):
        for name in names:
            below = os.path.join(directory, name)
            mode = os.lstat(below).st_mode
            if stat.S_ISDIR(mode) and mode & 0o700 != 0o700:
                os.chmod(below, 0o700)
    shutil.rmtree(path)


def empty(path: Path) -> None:
    """As `remove`, but by rm(1), which is quicker for large trees; for what the run itself made."""
    subprocess.run(["rm", "-rf", "--", path], check=True)
