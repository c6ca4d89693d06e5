"""The processes that the tests started, also those that were orphaned on the way.

The test process is a child subreaper (PR_SET_CHILD_SUBREAPER): whatever a test starts stays its descendant, so
a walk over parents finds servers in the background and the insides of pid namespaces alike.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
from pathlib import Path

from tests.support.waiting import settles

_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _stat(pid: int) -> tuple[str, int] | None:
    """(state, parent) of a process, or None where it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, parent = text[text.rindex(b")") + 2 :].split()[:2]
    return state.decode(), int(parent)


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    found = _stat(pid)
    return found is not None and found[0] not in "ZX"


def descendants() -> set[int]:
    """Every running process below this one. Orphans that ended are waited for on the way."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (found := _stat(int(name))) is not None:
            state, parent = found
            if state in "ZX":
                _reap(int(name), parent)
            else:
                parents[int(name)] = parent
    ours = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return ours - {os.getpid()}


def descriptors() -> set[str]:
    """Each open descriptor of this process with what it leads to."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that the listing was read through
            found.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
    return found


def descriptors_left(before: set[str]) -> list[str]:
    """Those opened since, some of them, but for garbage's: a traceback is a cycle that only the collector ends."""
    if not descriptors() - before:
        return []
    gc.collect()
    return sorted(descriptors() - before)[:10]


def _reap(pid: int, parent: int) -> None:
    if parent == os.getpid():
        with contextlib.suppress(ChildProcessError):  # its Popen object waited for it meanwhile
            os.waitpid(pid, os.WNOHANG)


def describe(pid: int) -> str:
    """A process as a line of a failure message."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        words = [b"(gone)"]
    return f"{pid}: {b' '.join(words).decode(errors='replace').strip()}"


def left_over(before: set[int], seconds: float = 10) -> list[str]:
    """Descriptions of the processes that a test left running, which are then killed."""
    if settles(lambda: not descendants() - before, seconds):
        return []
    left = sorted(descendants() - before)
    lines = [describe(pid) for pid in left]
    for pid in left:
        with contextlib.suppress(ProcessLookupError):  # it ended by itself after all
            os.kill(pid, signal.SIGKILL)
    return lines
