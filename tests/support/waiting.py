"""Waiting for a condition, since no test may sleep and hope."""

from __future__ import annotations

import time
from collections.abc import Callable

FIRST, LONGEST = 0.0005, 0.02
"""Seconds between two looks: short at first, since most conditions hold at once, twice as long each time."""


def wait_until(condition: Callable[[], object], what: str, seconds: float = 10) -> None:
    """Return as soon as `condition()` is true; `AssertionError` naming `what` when it is not in time."""
    if not settles(condition, seconds):
        raise AssertionError(f"waited {seconds} s for {what}")


def settles(condition: Callable[[], object], seconds: float = 10) -> bool:
    """Whether `condition()` becomes true within `seconds`."""
    deadline = time.monotonic() + seconds
    interval = FIRST
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(interval)
        interval = min(2 * interval, LONGEST)
    return True
