"""Stopping and continuing every process of a container: SIGSTOP, for where no freezer is delegated."""

from __future__ import annotations

import os
import signal
from contextlib import suppress


def members(init: int) -> set[int]:
    """The pids, as seen here, of all processes in the pid namespace of `init`."""
    namespace = _level(init)
    if namespace is None:
        return set()
    found = set()
    for name in os.listdir("/proc"):
        if name.isdecimal() and _level(int(name)) == namespace:
            found.add(int(name))
    return found


def stop(init: int) -> None:
    """SIGSTOP to all, until no new one is left: a process may be forked while one looks."""
    stopped: set[int] = set()
    while fresh := members(init) - stopped:
        for pid in fresh:
            _send(pid, signal.SIGSTOP)
        stopped |= fresh


def proceed(init: int) -> None:
    """SIGCONT to all. Process 1 last: it may look after the others."""
    for pid in sorted(members(init) - {init}, reverse=True):
        _send(pid, signal.SIGCONT)
    _send(init, signal.SIGCONT)


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it has ended
        os.kill(pid, number)


def _level(pid: int) -> str | None:
    """What tells the pid namespace of a process from others; None where it cannot be seen."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
