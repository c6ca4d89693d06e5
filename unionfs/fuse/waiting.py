"""How the server waits for the next request: asking again for a moment, then asleep.

Waking a sleeping process costs more than answering most requests, and a client that walks or reads asks again as
soon as it has its answer. So the device is asked a few more times before the server sleeps, for about as long as a
wake-up takes. That pays only where client and server run at the same time: what asking again brought of late
decides whether it is done (`Patience`).
"""

from __future__ import annotations

ASK_AGAIN = 90
"""Times; one takes 0.6 microseconds, waking up 40 to 60 (docs/performance.md)."""

_MOST = 16
_PROBE_AFTER = 64, 1024
"""Where it does not pay it is tried again after so many requests, at first and at most. A try in vain costs as much as
five requests, and on one CPU, where the client cannot run meanwhile, every one is in vain."""


class Patience:
    """Whether asking again pays, by its successes and failures so far."""

    __slots__ = ("_credit", "_probe_after", "_skipped")

    def __init__(self) -> None:
        self._credit = _MOST
        self._skipped = 0
        self._probe_after = _PROBE_AFTER[0]

    def times(self) -> int:
        """How often to ask again before the next sleep."""
        if self._credit > 0:
            return ASK_AGAIN
        self._skipped += 1
        if self._skipped < self._probe_after:
            return 0
        self._skipped = 0
        self._probe_after = min(2 * self._probe_after, _PROBE_AFTER[1])
        return ASK_AGAIN

    def paid(self) -> None:
        """A request came while it was asked for."""
        self._probe_after = _PROBE_AFTER[0]
        if self._credit < _MOST:
            self._credit += 1

    def failed(self) -> None:
        """None did."""
        if self._credit > 0:
            self._credit -= 1
