"""FUSE mounts that the tests made."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.support.waiting import settles


def _unescape(field: bytes) -> str:
    """A field of /proc/self/mounts: space, tab, newline and backslash are written in octal."""
    plain = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), field)
    return plain.decode(errors="surrogateescape")


def fuse_mounts(below: Iterable[Path]) -> set[str]:
    """The mount points of FUSE file systems that lie below one of these directories."""
    roots = tuple(f"{path}/" for path in below)
    found = set()
    for line in Path("/proc/self/mounts").read_bytes().splitlines():
        _, target, kind, *_ = line.split(b" ")
        path = _unescape(target)
        if kind.startswith(b"fuse") and f"{path}/".startswith(roots):
            found.add(path)
    return found


def left_over(before: set[str], below: Iterable[Path], seconds: float = 10) -> list[str]:
    """The mount points that a test left, which are then detached."""
    below = list(below)
    if settles(lambda: not fuse_mounts(below) - before, seconds):
        return []
    left = sorted(fuse_mounts(below) - before)
    for target in left:
        subprocess.run(["umount", "--lazy", target], check=False)
    return left
