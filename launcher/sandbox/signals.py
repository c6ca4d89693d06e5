"""Passing the launcher's signals on to process 1 of the container."""

from __future__ import annotations

import os
import select
import signal
from enum import Enum, auto

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
_TYPED = frozenset({signal.SIGINT, signal.SIGQUIT})
"""What a terminal sends, to every process of the foreground: a shell that waits for one counts on it."""
_FIRST_PAUSE, _LAST_PAUSE = 2.0, 500.0  # milliseconds
_SIGHTINGS = 3
_LOOKS = 5
_MASKS = ("SigBlk:", "SigIgn:", "SigCgt:", "ShdPnd:")


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

    def waiting(self) -> bool:
        """Whether any arrived that was not told yet."""
        watch = select.poll()
        watch.register(self.reader, select.POLLIN)
        return bool(watch.poll(0))


def _noted(number: int, frame: object) -> None:
    """The wakeup pipe has it; the handler only keeps the default action from happening."""


class Delivery:
    """Sends signals to process 1 of a container as if it were any other process.

    The kernel does not deliver to the first process of a pid namespace what would be its default action
    (pid_namespaces(7)), so a signal that is meant to end it and that it neither handles nor ignores would be
    lost: it is killed then, as the signal would have done to any other process.

    One that it holds back may be meant for its sigwait(3), or only be blocked for the length of a fork, as C libraries
    do it; the kernel would drop it when it is unblocked. So it is sent, and `settle` looks again until that is clear.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._doubtful: dict[int, int] = {}  # number: how often it was seen blocked and taken
        self._pause = _FIRST_PAUSE
        self._killed_by: int | None = None
        self._interrupted = False

    def status(self, ended: int) -> int:
        """What the caller is to see of an end, given as `os.waitstatus_to_exitcode` does: 128+n for signal n.

        An interrupt is passed on as such: -SIGINT, so that the launcher dies of it and a shell that runs it in a loop
        ends the loop. A process 1 cannot die of it, so 128+SIGINT after one counts as well. All other signals are the
        business of whoever sent them, who knows Docker's statuses.
        """
        if ended == -signal.SIGKILL and self._killed_by is not None:
            ended = -self._killed_by
        if ended == -signal.SIGINT or (self._interrupted and ended == 128 + signal.SIGINT):
            return -signal.SIGINT
        return ended if ended >= 0 else 128 - ended

    def send(self, number: int, *, running: bool) -> None:
        """`running` is False until exec: no preparation is worth interrupting any gentler."""
        self._interrupted |= number == signal.SIGINT
        try:
            if number in _HARMLESS:
                os.kill(self._pid, number)
            elif not running:
                self._kill(number)
            else:
                self._send(number)
        except ProcessLookupError:
            return  # it ended by itself, and how will be seen

    def typed(self, interrupted: int | None) -> None:
        """Keys went to the container's own terminal, which has sent an interrupt among them to this process group.

        For process 1 the kernel drops it if it means the end. What ends after further keys has not ended by it.
        A shell that handled it may be about to become a program that does not, so `settle` looks once more.
        """
        self._interrupted = interrupted is not None
        if interrupted != self._pid:
            return
        try:
            if _look(self._pid, signal.SIGINT) is _Seen.NOTHING:
                self._kill(signal.SIGINT)
            else:
                self._doubt(signal.SIGINT)
        except ProcessLookupError:
            return  # it ended by itself, and how will be seen

    def _send(self, number: int) -> None:
        seen = _look(self._pid, number)
        if seen is _Seen.NOTHING:
            self._kill(number)
            return
        if number in _TYPED and _foreground():
            os.killpg(self._pid, number)
        else:
            os.kill(self._pid, number)
        if seen is _Seen.BLOCKED:
            self._doubt(number)

    def _doubt(self, number: int) -> None:
        self._doubtful[number] = 0
        self._pause = _FIRST_PAUSE

    def _kill(self, number: int) -> None:
        os.kill(self._pid, signal.SIGKILL)
        self._killed_by = number

    def pause(self) -> float | None:
        """After how many milliseconds `settle` wants to be called; None: no need."""
        return self._pause if self._doubtful else None

    def settle(self) -> None:
        """Look what became of signals that were blocked when they were sent."""
        if not self._doubtful:
            return
        self._pause = min(self._pause * 2, _LAST_PAUSE)
        try:
            for number in list(self._doubtful):
                self._judge(number)
        except ProcessLookupError:
            self._doubtful.clear()

    def _judge(self, number: int) -> None:
        seen = _look(self._pid, number)
        if seen is _Seen.PENDING:
            return
        if seen is _Seen.BLOCKED:
            # It was taken, or was dropped just before another block.
            self._doubtful[number] += 1
            if self._doubtful[number] < _SIGHTINGS:
                return
        del self._doubtful[number]
        if seen is _Seen.NOTHING:
            self._kill(number)


class _Seen(Enum):
    """What a process would do with a signal."""

    HANDLED = auto()  # it is caught or ignored
    AWAITED = auto()  # a sigwait(3) takes it
    PENDING = auto()  # it is blocked and has arrived before
    BLOCKED = auto()
    NOTHING = auto()  # a process 1 does not even notice it


def _look(pid: int, number: int) -> _Seen:
    """By proc_pid_status(5). Raises ProcessLookupError.

    A sigwait shows as unblocked what it waits for, so a process that loops around one must be caught in it or out of
    it, and one look has two parts. NOTHING is only said when several looks agree.
    """
    for _ in range(_LOOKS):
        try:
            with open(f"/proc/{pid}/status") as status:
                masks = dict(line.split()[:2] for line in status if line.startswith(("Sig", "ShdPnd")))
            with open(f"/proc/{pid}/wchan") as sleep:
                waits = "sigtimedwait" in sleep.read()
        except FileNotFoundError as error:
            raise ProcessLookupError(pid) from error
        has = {name for name in _MASKS if int(masks[name], 16) >> (number - 1) & 1}
        if has & {"SigCgt:", "SigIgn:"}:
            return _Seen.HANDLED
        if waits:
            return _Seen.AWAITED
        if "SigBlk:" in has:
            return _Seen.PENDING if "ShdPnd:" in has else _Seen.BLOCKED
    return _Seen.NOTHING


def _foreground() -> bool:
    """Whether this process is in the foreground of a terminal, from which its signals may have come."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:  # ENXIO: it has none
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    finally:
        os.close(terminal)


def share_interrupt() -> None:
    """Send SIGINT to all whom the caller's terminal would have sent it, had it not passed on the key to another one.

    A shell that runs this command in a loop ends it only when it has got the interrupt, too. The caller handles it.
    """
    if _foreground():
        os.killpg(0, signal.SIGINT)


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
