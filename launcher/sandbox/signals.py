"""Passing the launcher's signals on to process 1 of the container."""

from __future__ import annotations

import os
import signal

FORWARDED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGTERM,
    signal.SIGTSTP,
    signal.SIGCONT,
    signal.SIGWINCH,
    signal.SIGIO,
    signal.SIGPWR,
)
_HARMLESS = frozenset({signal.SIGCONT, signal.SIGWINCH, signal.SIGTSTP})


class Inbox:
    """Arrived signals as bytes of a pipe, for poll(2). One that the caller had ignored (nohup) stays ignored."""

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()
        for end in (self.reader, self._writer):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in FORWARDED:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _noted)

    def arrived(self) -> list[int]:
        """The numbers since the last call."""
        return list(os.read(self.reader, 512))


def _noted(number: int, frame: object) -> None:
    """The wakeup pipe has it; the handler only keeps the default action from happening."""


def deliver(pid: int, number: int, *, running: bool) -> bool:
    """Send a signal to process 1 of a container; True when it was killed in place of that.

    The kernel does not deliver to the first process of a pid namespace what would be its default action
    (pid_namespaces(7)), so a signal that is meant to end it and that it neither handles nor ignores would be
    lost: it is killed then, as the signal would have done to any other process. `running` is False until exec: no
    preparation is worth interrupting any gentler.
    """
    try:
        if number in _HARMLESS or (running and _is_handled(pid, number)):
            os.kill(pid, number)
            return False
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False  # it ended by itself, and how will be seen
    return True


def stop_together(pid: int) -> None:
    """For Ctrl-Z: stop the container's foreground group, then this process, until a SIGCONT."""
    try:
        os.killpg(pid, signal.SIGSTOP)
    except ProcessLookupError:
        return
    os.kill(os.getpid(), signal.SIGSTOP)


def resume(pid: int) -> None:
    """The counterpart of `stop_together`."""
    try:
        os.killpg(pid, signal.SIGCONT)
    except ProcessLookupError:
        return


def _is_handled(pid: int, number: int) -> bool:
    """Whether a process catches, ignores or blocks a signal: SigCgt, SigIgn, SigBlk of proc_pid_status(5)."""
    handled = 0
    try:
        with open(f"/proc/{pid}/status") as status:
            for line in status:
                if line.startswith(("SigCgt:", "SigIgn:", "SigBlk:")):
                    handled |= int(line.split()[1], 16)
    except FileNotFoundError as error:
        raise ProcessLookupError(pid) from error
    return bool(handled >> (number - 1) & 1)
