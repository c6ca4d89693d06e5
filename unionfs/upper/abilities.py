"""What the file system of an upper can do, found out by trying when it is mounted, in the work directory.

A disk can do all of it. What others cannot (FUSE file systems as a rule, NFS, disks of old kernels) has a plain
substitute, which takes more steps and leaves at worst a temporary when the server is killed in between:

    noreplace      rename with RENAME_NOREPLACE: a look whether the name is there, since nobody else makes names
    exchange       rename with RENAME_EXCHANGE and
    leaving        with RENAME_WHITEOUT: without either, whiteouts are ``.wh.NAME`` files, which need no such step; the
                   two flags themselves are refused to who uses them on the mount (EINVAL, as rename(2) says)
    links          hard links that are one inode by their numbers, too (not so with sshfs): without, nothing is recorded
                   in `unionfs.upper.links`; a hard-linked file of the tree comes apart at the next mount when written
    keeps_removed  what was removed goes on without a name: without, files are opened, and what else was removed shows
                   what it was
    dressed_links attributes of a symbolic link itself: without, a new one has those of its making
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from typing import NamedTuple

from unionfs import syscalls, whiteout
from unionfs.upper.removing import remove_tree

MARK = b".ufs-probe"
"""In the upper directory, for a moment. No ``.wh.`` name: below may be an overlay, too. The next mount takes away what
a server that is killed then leaves."""

_NOT_HERE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
"""The file system does not know a flag or a call."""

_REMOTE = (0x6969, 0xFF534D42, 0xFE534D42, 0x01021997)
"""NFS, CIFS, SMB2 and 9p by statfs(2). What was removed goes on there for as long as its attributes are cached."""


_DISKS = (0xEF53, 0x58465342, 0x9123683E, 0xF2F52010, 0x01021994)
"""ext4, XFS, Btrfs, F2FS and tmpfs, which have it all: trying would take a millisecond of each start."""


class Abilities(NamedTuple):
    """See above."""

    noreplace: bool = True
    exchange: bool = True
    leaving: bool = True
    links: bool = True
    keeps_removed: bool = True
    dressed_links: bool = True


def probe(root: int, work: int, temporary: Callable[[], bytes]) -> Abilities:
    """Try; `temporary` names what is made in `work` for it. On a full disk nothing is tried, and all is hoped for.

    Raises EXDEV where nothing can be moved from the work directory to the upper directory, though they lie on one file
    system: each may be a bind mount of its own, or on another branch of the file system. Raises EOPNOTSUPP where no
    form of whiteout can be kept: a mount of fuse-overlayfs takes each for its own.
    """
    with contextlib.suppress(
        FileNotFoundError
    ):  # but EXDEV between two mounts comes first (do_renameat2(), fs/namei.c)
        os.rename(temporary(), MARK, src_dir_fd=work, dst_dir_fd=root)
    if syscalls.filesystem_type(work) in _DISKS:
        return Abilities()
    file, moved, directory = temporary(), temporary(), temporary()
    try:
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=work))
        os.mkdir(directory, 0o700, dir_fd=work)
        if not _keeps_whiteouts(work, temporary()):
            raise OSError(errno.EOPNOTSUPP, "no form of whiteout can be kept there")
        _cross(root, work, file)
        noreplace = _renames(work, file, moved, syscalls.RENAME_NOREPLACE)
        if noreplace:
            file, moved = moved, file
        leaves = _renames(work, file, moved, syscalls.RENAME_WHITEOUT)
        leaving = leaves and whiteout.exists(work, file)
        if leaves:
            file = moved
        return Abilities(
            noreplace=noreplace,
            leaving=leaving,
            links=_links(work, file, temporary()),
            exchange=_renames(work, file, directory, syscalls.RENAME_EXCHANGE),
            keeps_removed=_keeps_removed(work, temporary()),
            dressed_links=_dresses_links(work, temporary()),
        )
    except OSError as failure:
        if failure.errno in (errno.ENOSPC, errno.EDQUOT):
            return Abilities()
        raise
    finally:
        for name in os.listdir(whiteout.path(work)):
            remove_tree(work, os.fsencode(name))


def _keeps_whiteouts(work: int, name: bytes) -> bool:
    """Whether a whiteout, as a device or as a file, is still there once it was made."""
    for writer in (whiteout.Writer(devices=False), whiteout.Writer(devices=True)):
        try:
            writer.hide(work, name)
        except OSError as failure:
            if failure.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            continue
        if whiteout.exists(work, name if writer.devices else whiteout.PREFIX + name):
            return True
    return False


def _cross(root: int, work: int, file: bytes) -> None:
    """Move a file to the upper directory and back, which must not show by its times."""
    before = os.fstat(root)
    try:
        os.rename(file, MARK, src_dir_fd=work, dst_dir_fd=root)
        os.rename(MARK, file, src_dir_fd=root, dst_dir_fd=work)
        os.utime(root, ns=(before.st_atime_ns, before.st_mtime_ns))
    except PermissionError:
        pass  # Whoever may not write there has other troubles than a work directory elsewhere.


def _renames(work: int, name: bytes, newname: bytes, flags: int) -> bool:
    """Rename; False where the file system does not know the flags."""
    try:
        syscalls.renameat2(work, name, work, newname, flags)
    except OSError as failure:
        # EPERM: RENAME_WHITEOUT before Linux 5.8, for who may not make devices.
        if failure.errno in (*_NOT_HERE, errno.EPERM):
            return False
        raise
    return True


def _links(work: int, file: bytes, link: bytes) -> bool:
    try:
        os.link(file, link, src_dir_fd=work, dst_dir_fd=work, follow_symlinks=False)
    except OSError as failure:
        if failure.errno in (*_NOT_HERE, errno.EPERM, errno.EMLINK):
            return False
        raise
    one, other = (os.stat(name, dir_fd=work, follow_symlinks=False) for name in (file, link))
    return one.st_ino == other.st_ino and other.st_nlink == 2


def _keeps_removed(work: int, directory: bytes) -> bool:
    if syscalls.filesystem_type(work) in _REMOTE:
        return False
    os.mkdir(directory, 0o700, dir_fd=work)
    fd = os.open(directory, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=work)
    try:
        os.rmdir(directory, dir_fd=work)
        os.fstat(fd)
    except OSError as failure:
        if failure.errno in (errno.ENOENT, errno.ESTALE):
            return False
        raise
    finally:
        os.close(fd)
    return True


def _dresses_links(work: int, link: bytes) -> bool:
    try:
        os.symlink(b"nowhere", link, dir_fd=work)
        os.utime(link, ns=(0, 0), dir_fd=work, follow_symlinks=False)
    except OSError as failure:
        if failure.errno in (*_NOT_HERE, errno.EPERM, errno.ENOENT):  # ENOENT: it was followed
            return False
        raise
    return True
