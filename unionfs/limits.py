"""The limits of the caller (getrlimit(2)), which are not meant for a server that outlives it and works for others."""

from __future__ import annotations

import os
import resource
import signal
from types import FrameType
from typing import Final

from unionfs import syscalls

_PART: Final = 0.7
"""Of the processor time that is left to a process, before it hands over."""


def lift() -> None:
    """Lift those of processor time and of the size of files, as far as this user may.

    What somebody writes is held to his own limits by the kernel (generic_write_checks()), before it comes here.
    """
    for limit in (resource.RLIMIT_FSIZE, resource.RLIMIT_CPU):
        _, hard = resource.getrlimit(limit)
        try:
            resource.setrlimit(limit, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        except (ValueError, OSError):  # only CAP_SYS_RESOURCE raises a hard limit
            resource.setrlimit(limit, (hard, hard))


class Relay:
    """Hands over to a fork of this process before RLIMIT_CPU ends it: a fork begins with no time used.

    The first process stays, using none any more, and ends with the last, for whoever waits for it.
    """

    def __init__(self) -> None:
        self.due = False
        """Whether `pass_on` is to be called, by the only thread, as soon as that suits."""
        self._first = os.getpid()
        self._seconds = 0.0
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        if hard != resource.RLIM_INFINITY:
            self._seconds = max(hard, 1) * _PART
            signal.signal(signal.SIGPROF, self._note)
            signal.setitimer(signal.ITIMER_PROF, self._seconds)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.due = True

    def pass_on(self) -> None:
        """Returns in the process that goes on; it is to forget threads and whatever else a fork has not."""
        self.due = False
        if os.getpid() == self._first:
            syscalls.adopt_orphans()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            pid = os.fork()
        except OSError:  # no more processes for this user: tried again a little later
            signal.setitimer(signal.ITIMER_PROF, self._seconds / 20)
            return
        if not pid:
            signal.setitimer(signal.ITIMER_PROF, self._seconds)
        elif os.getpid() == self._first:
            os._exit(_last_status())
        else:
            os._exit(0)


def _last_status() -> int:
    """Wait until there are no processes below this one; how the last ended."""
    code = 0
    while True:
        try:
            code = os.waitstatus_to_exitcode(os.wait()[1])
        except ChildProcessError:
            return code if code >= 0 else 128 - code
