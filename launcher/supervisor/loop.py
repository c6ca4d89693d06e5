"""The supervisor's event loop: descriptors and moments, one thread, poll(2)."""

from __future__ import annotations

import select
import time
from collections.abc import Callable

Action = Callable[[], None]


class Timer:
    """An action that is due at a moment, unless it is cancelled."""

    def __init__(self, due: float, action: Action) -> None:
        self.due = due
        self.action: Action | None = action

    def cancel(self) -> None:
        """Nothing will be done."""
        self.action = None


class Loop:
    """Calls an action when a descriptor is ready to be read, or written, or when time has come.

    A descriptor may be watched for both. The end of a peer (POLLHUP, POLLERR) counts as readable where reading is
    watched, else as writable: the call that follows says what is the matter.
    """

    def __init__(self) -> None:
        self._poll = select.poll()
        self._reads: dict[int, Action] = {}
        self._writes: dict[int, Action] = {}
        self._timers: list[Timer] = []

    def reads(self, descriptor: int, action: Action | None) -> None:
        """Call `action` whenever `descriptor` can be read; None: no more."""
        self._set(self._reads, descriptor, action)

    def writes(self, descriptor: int, action: Action | None) -> None:
        """Call `action` whenever `descriptor` can be written; None: no more."""
        self._set(self._writes, descriptor, action)

    def forget(self, descriptor: int) -> None:
        """Watch `descriptor` no more; to be called before it is closed."""
        self.reads(descriptor, None)
        self.writes(descriptor, None)

    def watches(self, descriptor: int) -> bool:
        """Whether reading of `descriptor` is watched."""
        return descriptor in self._reads

    def after(self, seconds: float, action: Action) -> Timer:
        """Call `action` once, in so many seconds."""
        timer = Timer(time.monotonic() + seconds, action)
        self._timers.append(timer)  # there are never more than a few
        return timer

    def turn(self) -> None:
        """Wait for what comes first, and do all that is due then."""
        ready = self._poll.poll(self._pause())
        for descriptor, events in ready:
            if events & ~select.POLLOUT and descriptor in self._reads:
                self._reads[descriptor]()
            # An action may have ended the watch of any other.
            if (events & select.POLLOUT or descriptor not in self._reads) and descriptor in self._writes:
                self._writes[descriptor]()
        now = time.monotonic()
        due = [timer for timer in self._timers if timer.due <= now]
        self._timers = [timer for timer in self._timers if timer.due > now]
        for timer in sorted(due, key=lambda timer: timer.due):
            if timer.action is not None:
                timer.action()

    def _pause(self) -> float | None:
        self._timers = [timer for timer in self._timers if timer.action is not None]
        if not self._timers:
            return None
        return max(0.0, min(timer.due for timer in self._timers) - time.monotonic()) * 1000

    def _set(self, table: dict[int, Action], descriptor: int, action: Action | None) -> None:
        if action is not None:
            table[descriptor] = action
        elif table.pop(descriptor, None) is None:
            return
        mask = (select.POLLIN if descriptor in self._reads else 0) | (
            select.POLLOUT if descriptor in self._writes else 0
        )
        if mask:
            self._poll.register(descriptor, mask)
        else:
            self._poll.unregister(descriptor)
