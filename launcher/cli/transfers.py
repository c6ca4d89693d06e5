"""Layers on their way, as Docker shows them: a line each, drawn again on a terminal, else a line when one ends."""

from __future__ import annotations

import os
import sys
import time

from launcher.cli import output

_BETWEEN = 0.1  # seconds between two drawings
_BAR = 30  # columns


class _Line:
    """One blob: what it is doing, `done` of `total` bytes."""

    def __init__(self, what: str, total: int = 0, done: int = 0) -> None:
        self.what = what
        self.total = total
        self.done = done


class Transfers:
    """On standard error. As a context manager; leaving it draws the last state. Called from one thread."""

    def __init__(self, doing: str, quiet: bool = False) -> None:
        self._doing = doing  # "Downloading", "Pushing"
        self._quiet = quiet
        self._terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._lines: dict[str, _Line] = {}
        self._drawn = 0.0
        self._height = 0

    def __enter__(self) -> Transfers:
        return self

    def __exit__(self, *_: object) -> None:
        self._draw(last=True)

    def begin(self, digest: str, size: int, have: int) -> None:
        """A blob of `size` bytes begins, `have` of which are there."""
        self._lines[digest] = _Line(self._doing, size, have)
        if have and not self._terminal and not self._quiet:
            print(f"{_short(digest)}: going on after {output.size(have)} of {output.size(size)}", file=sys.stderr)
        self._draw()

    def advance(self, digest: str, count: int) -> None:
        """`count` more bytes."""
        line = self._lines[digest]
        line.what = self._doing
        line.done += count
        self._draw()

    def waiting(self, digest: str, reason: str) -> None:
        """It does not go on at the moment."""
        self._lines[digest].what = reason
        self._draw()

    def end(self, digest: str, what: str) -> None:
        """It is over with."""
        self._lines[digest] = _Line(what)
        if not self._terminal and not self._quiet:
            print(f"{_short(digest)}: {what}", file=sys.stderr)
        self._draw()

    def _draw(self, last: bool = False) -> None:
        now = time.monotonic()
        if not self._terminal or self._quiet or not (last or now - self._drawn >= _BETWEEN):
            return
        self._drawn = now
        columns, rows = os.get_terminal_size(2)
        text = [self._text(digest, line)[: (columns or 80) - 1] for digest, line in self._lines.items()]
        if rows and len(text) >= rows and not last:  # what has scrolled away cannot be drawn again
            text = text[-(rows - 1) :]
        up = f"\x1b[{self._height}A" if self._height else ""
        sys.stderr.write(up + "".join(f"\r\x1b[K{line}\n" for line in text))
        sys.stderr.flush()
        self._height = 0 if last else len(text)

    def _text(self, digest: str, line: _Line) -> str:
        if not line.total:
            return f"{_short(digest)}: {line.what}"
        filled = _BAR * line.done // line.total
        bar = ("=" * filled + ">")[:_BAR].ljust(_BAR)
        return f"{_short(digest)}: {line.what} [{bar}] {output.size(line.done)}/{output.size(line.total)}"


def _short(digest: str) -> str:
    return digest.partition(":")[2][:12]
