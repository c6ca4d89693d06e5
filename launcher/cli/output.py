"""What commands print: tables, sizes, ages and progress. On a terminal for people, in a pipe for programs."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from launcher.errors import complain, printable

_BETWEEN = 0.1  # seconds between two drawings of a progress line
_SPARSE = 5.0  # seconds between two lines of progress where there is no terminal
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_YEAR = (365 * 86400, "year")
_AGES = (  # below so many seconds, in this unit
    (60, 1, "second"),
    (3600, 60, "minute"),
    (48 * 3600, 3600, "hour"),
    (14 * 86400, 86400, "day"),
    (60 * 86400, 7 * 86400, "week"),
    (730 * 86400, 30 * 86400, "month"),
)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns under a header on a terminal; in a pipe one line a row, fields separated by tabs, no header."""
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(printable(field) for field in row))
        return
    lines = [list(header), *([printable(field) for field in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        print("   ".join(field.ljust(width) for field, width in zip(line, widths, strict=True)).rstrip())


def as_json(value: Any, **how: Any) -> str:
    """JSON as people read it, but that no character of it obeys to the terminal: those are escaped (RFC 8259, 7)."""
    text = json.dumps(value, ensure_ascii=False, **how)
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() or sign == "\n" else json.dumps(sign)[1:-1] for sign in text)


def size(count: float) -> str:
    """Bytes with a decimal unit and three digits, as Docker shows them."""
    power = 0
    while count >= 999.5 and power < len(_UNITS) - 1:
        count, power = count / 1000, power + 1
    return f"{count:.3g}{_UNITS[power]}"


def age(seconds: float) -> str:
    """How long ago, in one unit."""
    seconds = max(seconds, 0)
    unit, name = next(((unit, name) for limit, unit, name in _AGES if seconds < limit), _YEAR)
    count = int(seconds // unit)
    return f"{count} {name}{'' if count == 1 else 's'} ago"


class Progress:
    """Progress on standard error: one line that is drawn again on a terminal, else a line now and then.

    As a context manager; leaving it ends the line. `advance` may be called from any thread.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._terminal = sys.stderr.isatty()
        self._quiet = quiet
        self._lock = threading.Lock()
        self._what = ""
        self._total = self._done = 0
        self._drawn = 0.0
        self._open = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()

    def begin(self, what: str, total: int) -> None:
        """A step of `total` bytes begins."""
        with self._lock:
            self._what, self._total, self._done = what, total, 0
            # A step that is over soon is not worth a line in a log.
            self._drawn = time.monotonic()
            if self._terminal:
                self._draw()

    def advance(self, count: int) -> None:
        """`count` more bytes of the step are done."""
        with self._lock:
            self._done += count
            now = time.monotonic()
            if now - self._drawn >= (_BETWEEN if self._terminal else _SPARSE):
                self._drawn = now
                self._draw()

    def _draw(self) -> None:
        if self._quiet:
            return
        share = f" {100 * self._done // self._total}%" if self._total else ""
        text = f"{self._what}: {size(self._done)} of {size(self._total)}{share}"
        if self._terminal:
            columns = os.get_terminal_size(2).columns or 80
            sys.stderr.write(f"\r\x1b[K{text[: columns - 1]}")
            self._open = True
        else:
            sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def _clear(self) -> None:
        if self._open:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._open = False


def warn(message: str) -> None:
    """One line on standard error that does not change the exit status."""
    complain(message)
