"""Owners and modes kept in the xattr ``user.containers.override_stat`` (containers/storage, pkg/idtools).

The value is ``UID:GID:MODE``, the mode octal, optionally followed by ``:TYPE``, TYPE being one of file, dir,
symlink, pipe, socket, block-MAJ-MIN or char-MAJ-MIN. A layer uses it where its root carries it, and all of it then;
or where its root carries `SOME`, which other readers do not know. The xattrs that an ordinary user may not set are kept
as ``user.containers.override_NAME`` in the first case.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final, NamedTuple

XATTR: Final = "user.containers.override_stat"
SOME: Final = "user.ufs.overrides"
"""Of our own, on the root of an upper: some of what is in it has an override, for what the host refused to a server."""

PREFIX: Final = b"user.containers.override_"

_PRIVILEGED: Final = (b"security.", b"trusted.", b"system.posix_acl_")
"""What is for privileged processes, or has to agree with the mode on the host."""

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


def of(status: os.stat_result) -> Override:
    """What a file of the host says of itself."""
    return Override(status.st_uid, status.st_gid, status.st_mode, status.st_rdev)


def value(override: Override) -> bytes:
    """The value to store. Files and directories go without a type, which older readers do not expect."""
    kind = stat.S_IFMT(override.mode)
    text = b"%d:%d:%04o" % (override.uid, override.gid, stat.S_IMODE(override.mode))
    if kind in (stat.S_IFREG, stat.S_IFDIR):
        return text
    text += b":" + next(word for word, bits in _TYPES.items() if bits == kind)
    if kind in (stat.S_IFBLK, stat.S_IFCHR):
        text += b"-%d-%d" % (os.major(override.rdev), os.minor(override.rdev))
    return text


def write(target: int | bytes, override: Override, follow: bool = False) -> None:
    """Store an override on a file or directory, by its path or a descriptor. Raises EOPNOTSUPP without user xattrs."""
    os.setxattr(target, XATTR, value(override), follow_symlinks=follow or isinstance(target, int))


def host_mode(mode: int) -> int:
    """The mode bits for a file that has an override: always open to its real owner, never set-id or sticky."""
    return mode & 0o777 | (0o700 if stat.S_ISDIR(mode) else 0o600)


def stored_xattr(name: bytes) -> bytes:
    """The name that an xattr is kept under in a layer with overrides."""
    return PREFIX + name if name.startswith(_PRIVILEGED) else name


def shown_xattr(name: bytes) -> bytes:
    """The name that one of a layer with overrides is shown under; XATTR itself stays, a mark like others."""
    return name.removeprefix(PREFIX) if name.startswith(PREFIX) and os.fsdecode(name) != XATTR else name


def read(path: bytes, status: os.stat_result, follow: bool = False) -> Override | None:
    """The override of the file at `path`, or None where it has none. `follow` its last name?"""
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        return None  # user xattrs exist on no other type
    try:
        return parse(os.getxattr(path, XATTR, follow_symlinks=follow), status)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return None
        raise
