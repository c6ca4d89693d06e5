"""What this mount namespace has mounted (/proc/self/mountinfo, proc(5)), told without touching any of it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple


class Entry(NamedTuple):
    """One mount."""

    target: str
    source: str
    type: str
    options: tuple[str, ...]
    """Of the mount and of its file system."""


def entries() -> Iterator[Entry]:
    """All mounts, in the order of mounting."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            before, _, after = line.rstrip("\n").partition(" - ")
            fields = before.split(" ")
            kind, source, options = after.split(" ", 2)
            yield Entry(_unescaped(fields[4]), _unescaped(source), kind, (*fields[5].split(","), *options.split(",")))


def find(target: str | os.PathLike[str]) -> Entry | None:
    """The mount on top of a place; None where nothing is mounted."""
    wanted, found = os.fspath(target), None
    for entry in entries():
        if entry.target == wanted:
            found = entry
    return found


def _unescaped(field: str) -> str:
    """Space, tab, newline and backslash are written in octal."""
    octal = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), os.fsencode(field))
    return os.fsdecode(octal)
