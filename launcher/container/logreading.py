"""Reading what `logs` wrote, from any place in it, also while it is written and its parts are renamed."""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from launcher.container import logs

_BLOCK = 1 << 20
_PREFIX = re.compile(rb"^\S+ stdout F ", re.M)
_OTHERS = re.compile(rb"^(?!\S+ stdout F )", re.M)
_TAIL = re.compile(rb"\S+ std(?:out|err) ([FP]) ")


class Record(NamedTuple):
    """One record. `stamp` is RFC 3339 in UTC with nanoseconds, so that the order of the texts is that of the times.

    `whole`: it ends a line; then `text` ends in a newline.
    """

    stamp: bytes
    stream: bytes
    whole: bool
    text: bytes


def parse(line: bytes) -> Record | None:
    """A line of the log without its newline; None for what is no record: a machine went down while it was written."""
    fields = line.split(b" ", 3)
    if len(fields) != 4 or fields[1] not in (b"stdout", b"stderr") or fields[2] not in (b"F", b"P"):
        return None
    whole = fields[2] == b"F"
    return Record(fields[0], fields[1], whole, fields[3] + b"\n" if whole else fields[3])


def plain(block: bytes) -> bytes | None:
    """The text of whole records when all of them are whole lines on standard output, the usual case; else None."""
    # The last newline is followed by an empty line, which is no record.
    if _OTHERS.search(block[:-1]) is not None:
        return None
    return _PREFIX.sub(b"", block)


class Reader:
    """Reads the log in a container's directory part by part; what is renamed meanwhile is found again by its inode."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._file = -1
        self._rest = b""
        self._done: set[int] = set()

    def begin(self, tail: int | None) -> None:
        """Start at the beginning, or so many lines before the end."""
        if tail is None:
            return
        paths = logs.parts(self._directory)
        for path in reversed(paths):
            tail, offset = _back(path, tail)
            if offset is not None:
                self._open(path)
                os.lseek(self._file, offset, os.SEEK_SET)
                older = paths[: paths.index(path)]
                self._done |= {os.stat(one).st_ino for one in older}
                return

    def blocks(self) -> Iterator[bytes]:
        """What is there and was not read yet, in blocks of whole lines."""
        while self._file >= 0 or self._next():
            while data := os.read(self._file, _BLOCK):
                lines, newline, rest = data.rpartition(b"\n")
                if newline:
                    yield self._rest + lines + newline
                    self._rest = rest
                else:
                    self._rest += rest
            if not self._has_next():
                return
            self.close()

    def close(self) -> None:
        """Let go of the part that is open."""
        if self._file >= 0:
            self._done.add(os.fstat(self._file).st_ino)
            os.close(self._file)
            self._file, self._rest = -1, b""

    def _has_next(self) -> bool:
        """Whether the part that is open has been closed by its writer: there is a newer one."""
        try:
            return os.stat(f"{self._directory}/{logs.NAME}").st_ino != os.fstat(self._file).st_ino
        except FileNotFoundError:
            return False

    def _next(self) -> bool:
        for path in logs.parts(self._directory):
            try:
                if os.stat(path).st_ino not in self._done:
                    self._open(path)
                    return True
            except FileNotFoundError:
                continue  # it was just renamed, and comes again under that name, or was the oldest
        return False

    def _open(self, path: str) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _back(path: str, count: int) -> tuple[int, int | None]:
    """Go back over `count` lines of a part: (how many are wanted of older parts, where they begin in this one)."""
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return count, None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            end = text.rfind(b"\n") + 1
            first = True
            while end > 0:
                begin = text.rfind(b"\n", 0, end - 1) + 1
                found = _TAIL.match(text, begin, end)
                # A line is over with its last record; the newest may not have ended yet, and is one all the same.
                if found and (found[1] == b"F" or first):
                    if count == 0:
                        return 0, end
                    count -= 1
                first = False
                end = begin
    return count, None
