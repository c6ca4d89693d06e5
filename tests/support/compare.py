"""Two trees of files side by side: a mount and the plain directory that says what is right."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.content import RECENT


class Seen(NamedTuple):
    """What is compared of one name. Times of directories' and files' changes are told apart only as old and new."""

    mode: str
    owner: tuple[int, int]
    nlink: int  # 0 for directories, whose counts are the file system's own business
    size: int  # 0 for directories
    mtime: int | str
    rdev: int
    xattrs: dict[str, bytes]
    content: str | bytes | tuple[str, ...]


def status(info: os.stat_result) -> tuple[str, tuple[int, int], int, int, int | str, int]:
    """The comparable part of a status."""
    is_directory = stat.S_ISDIR(info.st_mode)
    mtime = "now" if info.st_mtime > RECENT else info.st_mtime_ns
    return (
        stat.filemode(info.st_mode),
        (info.st_uid, info.st_gid),
        0 if is_directory else info.st_nlink,
        0 if is_directory else info.st_size,
        mtime,
        info.st_rdev,
    )


def everything(base: Path) -> tuple[dict[str, Seen], dict[str, int]]:
    """All below a directory, and the inode number of each name."""
    found: dict[str, Seen] = {}
    numbers: dict[str, int] = {}
    waiting = [""]
    while waiting:
        where = waiting.pop()
        names = os.listdir(base / where)
        assert len(names) == len(set(names)), f"{where} lists a name twice: {sorted(names)}"
        for name in names:
            path = f"{where}/{name}" if where else name
            info = os.lstat(base / path)
            found[path] = Seen(*status(info), _xattrs(base / path), _content(base / path, info))
            numbers[path] = info.st_ino
            if stat.S_ISDIR(info.st_mode):
                waiting.append(path)
    return found, numbers


def _xattrs(path: Path) -> dict[str, bytes]:
    names = os.listxattr(path, follow_symlinks=False)
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in sorted(names)}


def _content(path: Path, info: os.stat_result) -> str | bytes | tuple[str, ...]:
    if stat.S_ISLNK(info.st_mode):
        return os.readlink(path)
    if stat.S_ISDIR(info.st_mode):
        return tuple(sorted(os.listdir(path)))
    return path.read_bytes() if stat.S_ISREG(info.st_mode) else ""


def outcome(call: Callable[[], Any]) -> Any:
    """What a call returns, or the name of its errno."""
    import errno

    try:
        return call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def differences(ours: dict[str, Seen], right: dict[str, Seen]) -> list[str]:
    """A line for each field that differs."""
    lines = [f"{path} should not be there" for path in sorted(ours.keys() - right.keys())]
    lines += [f"{path} is missing" for path in sorted(right.keys() - ours.keys())]
    for path in sorted(ours.keys() & right.keys()):
        for field, mine, other in zip(Seen._fields, ours[path], right[path], strict=True):
            if mine != other:
                lines.append(f"{path}: {field} is {_short(mine)}, should be {_short(other)}")
    return lines


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 200 else f"{text[:80]}...{text[-80:]} ({len(text)} characters)"
