"""Owners and modes kept in the xattr ``user.containers.override_stat`` (containers/storage, pkg/idtools).

The value is ``UID:GID:MODE``, the mode octal, optionally followed by ``:TYPE``, TYPE being one of file, dir,
symlink, pipe, socket, block-MAJ-MIN or char-MAJ-MIN. A layer uses it where its root carries it. The xattrs
that an ordinary user may not set are kept as ``user.containers.override_NAME``.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final, NamedTuple

XATTR: Final = "user.containers.override_stat"
PREFIX: Final = b"user.containers.override_"

_TYPES: Final = {
    b"file": stat.S_IFREG,
    b"dir": stat.S_IFDIR,
    b"symlink": stat.S_IFLNK,
    b"pipe": stat.S_IFIFO,
    b"socket": stat.S_IFSOCK,
    b"block": stat.S_IFBLK,
    b"char": stat.S_IFCHR,
}


class Override(NamedTuple):
    """What is shown instead of what the file system of the layer says."""

    uid: int
    gid: int
    mode: int  # with its type
    rdev: int  # as st_rdev


def parse(value: bytes, status: os.stat_result) -> Override:
    """Read a value; the type is the file's own where none is given. Raises EINVAL for a malformed one."""
    fields = value.split(b":")
    try:
        uid, gid, mode = int(fields[0]), int(fields[1]), int(fields[2], 8) & 0o7777
        type_, *numbers = fields[3].split(b"-") if len(fields) > 3 else [b""]
        device = os.makedev(*map(int, numbers)) if len(numbers) == 2 else 0
    except (ValueError, IndexError, OverflowError) as error:
        raise OSError(errno.EINVAL, f"{XATTR} is malformed: {value!r}") from error
    if not (0 <= uid < 1 << 32 and 0 <= gid < 1 << 32):
        raise OSError(errno.EINVAL, f"{XATTR} is malformed: {value!r}")
    kind = stat.S_IFMT(status.st_mode)
    # Only a regular file can stand for something else: a directory has names in it, a symlink a target.
    if kind == stat.S_IFREG and type_:
        kind = next((bits for word, bits in _TYPES.items() if word.startswith(type_)), kind)
        if kind == stat.S_IFDIR:
            kind = stat.S_IFREG
    return Override(uid, gid, kind | mode, device if kind in (stat.S_IFBLK, stat.S_IFCHR) else 0)


def read(path: bytes, status: os.stat_result) -> Override | None:
    """The override of the file at `path` (its last name is not followed), or None where it has none."""
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        return None  # user xattrs exist on no other type
    try:
        return parse(os.getxattr(path, XATTR, follow_symlinks=False), status)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return None
        raise
