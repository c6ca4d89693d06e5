"""Standard streams of a command: the caller's own, or pipes to and from this process."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress

Streams = tuple[int, int, int]
"""Descriptors for standard input, output and error; -1: none, or not ours to read or write."""

_PIPE = 1 << 18


def connected(user: str, *, interactive: bool, passed: tuple[int, ...]) -> tuple[Streams, Streams]:
    """(what a command of `user`, as an image's User, gets as 0, 1 and 2, our ends). A terminal is made inside.

    Those in `passed` are the caller's own where that may be, all others are pipes.
    """
    theirs, ours = [-1, -1, -1], [-1, -1, -1]
    for number in (0, 1, 2) if interactive else (1, 2):
        if number in passed and _opens(user, number):
            theirs[number] = number
        elif number:
            ours[number], theirs[number] = _pipe()
        else:
            theirs[number], ours[number] = _pipe()
    return (theirs[0], theirs[1], theirs[2]), (ours[0], ours[1], ours[2])


def _opens(user: str, descriptor: int) -> bool:
    """Whether a command of `user` can open again by name (/dev/stdin) what `descriptor` of this process refers to.

    It can as the container's root, where the caller owns it. Giving his terminal or his files away is no option: others
    get pipes.
    """
    caller = os.geteuid()
    return user.partition(":")[0] in ("", "0", "root") and caller in (0, os.fstat(descriptor).st_uid)


def close(streams: Streams) -> None:
    """Close what is a pipe of ours."""
    for descriptor in streams:
        if descriptor > 2:
            os.close(descriptor)


def _pipe() -> tuple[int, int]:
    """A pipe with room for what a program says between two turns of the loop: (read end, write end)."""
    ends = os.pipe()
    # EPERM: this user has used up what pipes may hold (pipe-user-pages-soft), and the smallest will do.
    with suppress(PermissionError):
        fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, _PIPE)
    return ends
