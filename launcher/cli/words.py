"""Docker's words for times and states."""

from __future__ import annotations

import time

from launcher.container import state

_SHOWN = 40  # characters of a reason


def duration(seconds: float) -> str:
    """As Docker's units.HumanDuration: "Less than a second", "About a minute", "3 hours"."""
    whole = int(max(seconds, 0))
    minutes, hours = whole // 60, int(whole / 3600 + 0.5)
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return "1 second" if whole == 1 else f"{whole} seconds"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    for limit, unit, name in ((14, 1, "days"), (60, 7, "weeks"), (730, 30, "months")):
        if hours < 24 * limit:
            return f"{hours // 24 // unit} {name}"
    return f"{hours // 24 // 365} years"


def status(seen: state.Seen, *, whole: bool = False, health: str = "") -> str:
    """The STATUS column. What nobody could write down is said with its reason. `health`: "" if nothing is checked."""
    now = time.time()
    match seen:
        case state.Running():
            well = f" ({'health: ' if health == 'starting' else ''}{health})" if health else ""
            return f"Up {duration(now - seen.at)}{well}"
        case state.Paused():
            return f"Up {duration(now - seen.at)} (Paused)"
        case state.Restarting():
            return f"Restarting ({seen.status}) {duration(now - seen.at)} ago"
        case state.Exited():
            why = f" ({_short(seen.error, whole)})" if seen.error else ""
            return f"Exited ({seen.status}) {duration(now - seen.at)} ago{why}"
        case state.Dead():
            return f"Dead ({_short(seen.reason, whole)})"
        case _:
            return "Created"


def _short(text: str, whole: bool) -> str:
    return text if whole or len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def escaped(text: str) -> str:
    """Control characters must not reach a terminal."""
    return "".join(c if c.isprintable() or 0xDC80 <= ord(c) <= 0xDCFF else f"\\x{ord(c):02x}" for c in text)
