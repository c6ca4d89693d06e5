"""Access times of the upper: by which mount of the host it is reached.

It is the host's own reading that moves them, or not, as the flags of the host's mount have it (relatime, as a rule). To
set one by hand would show in st_ctime. So where the union is mounted with flags of its own (noatime, nodiratime,
relatime, strictatime) the upper is opened through a private copy of the host's mount that has the same.
"""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

from unionfs import mountflags, syscalls

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_OF_TREE = {
    mountflags.NOATIME: syscalls.MOUNT_ATTR_NOATIME,
    mountflags.STRICTATIME: syscalls.MOUNT_ATTR_STRICTATIME,
    mountflags.NODIRATIME: syscalls.MOUNT_ATTR_NODIRATIME,
}


class Opened(NamedTuple):
    """Descriptors of the upper and the work directory."""

    root: int
    base: int
    tree: int
    """Of the copied mount, which lives as long as this; -1 for none."""


def open_both(upperdir: bytes | str, workdir: bytes | str, access: int) -> Opened:
    """Open both through one mount, since rename(2) crosses none. `access`: MS_ flags on access times, 0 for none."""
    root = os.open(upperdir, _DIRECTORY)
    try:
        base = os.open(workdir, _DIRECTORY)
    except BaseException:
        os.close(root)
        raise
    if not access:
        return Opened(root, base, -1)
    places = [os.path.realpath(os.fsencode(path)) for path in (upperdir, workdir)]
    common = os.path.commonpath(places)
    try:
        tree = syscalls.clone_mount(common, sum(bit for flag, bit in _OF_TREE.items() if access & flag))
    except OSError as error:
        # Not root's, or mounted by somebody more privileged (MNT_LOCK_ATIME); ENOSYS: before Linux 5.12.
        if error.errno not in (errno.EPERM, errno.EINVAL, errno.ENOSYS):
            raise
        return Opened(root, base, -1)
    known = zip(places, (root, base), strict=True)
    through = [_reopened(tree, os.path.relpath(path, common), fd) for path, fd in known]
    if min(through) < 0:  # another mount lies between
        for fd in (*through, tree):
            if fd >= 0:
                os.close(fd)
        return Opened(root, base, -1)
    os.close(root)
    os.close(base)
    return Opened(through[0], through[1], tree)


def _reopened(tree: int, path: bytes, known: int) -> int:
    """The same directory as `known`, in a tree; -1 where it is another one or not there."""
    try:
        fd = os.open(path, _DIRECTORY | os.O_NOFOLLOW, dir_fd=tree)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise
        return -1
    if os.path.samestat(os.fstat(fd), os.fstat(known)):
        return fd
    os.close(fd)
    return -1
