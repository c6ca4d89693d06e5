"""Where server and client run: anywhere, or both on one CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

PLACEMENTS = ("free", "one CPU")


@contextmanager
def placed(placement: str) -> Iterator[None]:
    """Everything started within inherits the placement. With one CPU nobody waits for a sleeping one to wake."""
    before = os.sched_getaffinity(0)
    if placement == "one CPU":
        os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
