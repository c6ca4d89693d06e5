"""Signals by name or number, as people write them: signal(7)."""

from __future__ import annotations

import signal

from launcher.errors import UfsError


def number(text: str) -> int:
    """`TERM`, `SIGTERM`, `sigterm`, `15`, `RTMIN+3` or `RTMAX-1` as a number. UfsError for what is no signal."""
    word = text.strip().upper().removeprefix("SIG")
    found = _real_time(word)
    if word.isascii() and word.isdecimal():
        found = int(word)
    elif f"SIG{word}" in signal.Signals.__members__:
        found = signal.Signals[f"SIG{word}"]
    if found not in signal.valid_signals():
        raise UfsError(f"no signal {text!r}; kill -l lists them", 1)
    return int(found)


def _real_time(word: str) -> int:
    for base, first, sign in (("RTMIN", signal.SIGRTMIN, "+"), ("RTMAX", signal.SIGRTMAX, "-")):
        head, mark, count = word.partition(sign)
        if head == base and (not mark or (count.isascii() and count.isdecimal())):
            found = first + int(sign + (count or "0"))
            return found if signal.SIGRTMIN <= found <= signal.SIGRTMAX else 0
    return 0
