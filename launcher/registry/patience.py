"""When to ask again, and after how long: cut connections, busy and broken servers."""

from __future__ import annotations

import email.utils
import random
import time

ATTEMPTS = 5
"""How often something is asked that brings nothing."""

AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that may be others a moment later (RFC 9110, RFC 6585)."""

_FIRST, _MOST = 0.25, 20.0  # seconds
_LONGEST_WAIT = 300.0
"""A server that wants a longer wait than this is told to the user instead."""


class Patience:
    """The tries of one request or one blob."""

    def __init__(self) -> None:
        self._failed = 0

    def progressed(self) -> None:
        """Something came: failures before it do not count any more."""
        self._failed = 0

    def delay(self, retry_after: str | None = None) -> float | None:
        """Seconds to wait before the next try, None where it has been enough. `retry_after`: the server's header.

        Exponential with full jitter, so that many who were cut off at once do not come back at once.
        """
        self._failed += 1
        if self._failed >= ATTEMPTS:
            return None
        wanted = _seconds(retry_after)
        if wanted is not None:
            return wanted if wanted <= _LONGEST_WAIT else None
        return random.uniform(0, min(_MOST, _FIRST * 2**self._failed))


def _seconds(header: str | None) -> float | None:
    """Retry-After (RFC 9110, 10.2.3): a number of seconds or a date."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(min(int(text[:10]), 1 << 31))
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
