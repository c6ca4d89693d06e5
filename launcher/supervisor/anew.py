"""Executing the supervisor anew: the same process, without what it imported.

execve(2) keeps the process, so also its children, which have asked to die with it, the lock, and every descriptor that
is to stay. Signals are blocked meanwhile, and wait.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterable
from typing import Any

from launcher.sandbox import signals

_PROGRAM = os.path.join(os.path.dirname(__file__), "small.py")


def become(module: str, handed: dict[str, Any], descriptors: Iterable[int]) -> None:
    """Go on in `resume(handed)` of a module with nothing but `descriptors`; returns only where that is not possible."""
    for descriptor in descriptors:
        if descriptor >= 0:
            os.set_inheritable(descriptor, True)
    words = json.dumps({**handed, "module": module, "path": sys.path})
    try:
        os.execv(sys.executable, [sys.executable, "-ISXutf8", _PROGRAM, words])
    except OSError as error:  # the Python that we run was replaced
        sys.stderr.write(f"ufs: {sys.executable}: {error.strerror}\n")


def taken_over(descriptors: Iterable[int]) -> None:
    """On the other side: they are for this program alone again."""
    for descriptor in descriptors:
        if descriptor >= 0:
            os.set_inheritable(descriptor, False)


def hold_signals() -> None:
    """From now on they wait."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signals.FORWARDED)


def hear_signals() -> None:
    """Those that waited come, too."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.FORWARDED)
