"""Counting FUSE requests by the kernel's tracepoint fuse:fuse_request_send, the same for every server.

FORGET is not counted: it bypasses the tracepoint, and nobody waits for it (fs/fuse/dev.c). Needs root and tracefs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MOUNTED = Path("/sys/kernel/tracing")


class Counter:
    """Counts between `begin` and `end`. One that has no place to look counts nothing."""

    def __init__(self, instance: Path | None) -> None:
        self._instance = instance

    def begin(self, connection: int | None) -> None:
        """`connection`: the minor number of the mount's device, as the tracepoint gives it."""
        if self._instance is None or connection is None:
            return
        event = self._instance / "events/fuse/fuse_request_send"
        (self._instance / "trace").write_text("")  # empties the buffers and their counts
        (event / "filter").write_text(f"connection == {connection}")
        (event / "enable").write_text("1")

    def end(self, connection: int | None) -> int | None:
        """The number of requests, or None where none can be counted."""
        if self._instance is None or connection is None:
            return None
        (self._instance / "events/fuse/fuse_request_send/enable").write_text("0")
        count = 0
        for path in self._instance.glob("per_cpu/cpu*/stats"):
            stats = dict(line.split(": ", 1) for line in path.read_text().splitlines())
            count += sum(int(stats[key]) for key in ("entries", "overrun", "dropped events"))
        return count


@contextmanager
def counter(area: Path) -> Iterator[Counter]:
    """A counter with a trace instance of its own, so that nobody else's tracing is touched."""
    if os.geteuid() != 0:
        yield Counter(None)
        return
    place = _MOUNTED
    ours = not (place / "instances").is_dir()
    if ours:
        place = area / "tracefs"
        place.mkdir()
        mounted = subprocess.run(["mount", "-t", "tracefs", "tracefs", place], stderr=subprocess.DEVNULL, check=False)
        if mounted.returncode:
            print("bench: requests are not counted: tracefs cannot be mounted", file=sys.stderr)
            yield Counter(None)
            return
    try:
        with _instance(place) as instance:
            yield Counter(instance)
    finally:
        if ours:
            # Lazily: the file system of one event that was just switched off stays busy for a moment.
            subprocess.run(["umount", "--lazy", place], check=True)


@contextmanager
def _instance(place: Path) -> Iterator[Path | None]:
    instance = place / "instances" / f"ufs-bench-{os.getpid()}"
    try:
        instance.mkdir()
    except OSError as error:  # a kernel without instances, or that is locked down
        print(f"bench: requests are not counted: {error}", file=sys.stderr)
        yield None
        return
    try:
        if (instance / "events/fuse/fuse_request_send").is_dir():
            (instance / "buffer_size_kb").write_text("64")  # only the counts are wanted; old events may be lost
            yield instance
        else:
            print("bench: requests are not counted: no tracepoint fuse:fuse_request_send", file=sys.stderr)
            yield None
    finally:
        instance.rmdir()
