"""Changing the flags of a running mount, as mount(8) asks its helper with ``-o remount``."""

from __future__ import annotations

import errno
import os

from unionfs import mountflags, mounts, syscalls
from unionfs.fuse.mount import MountError
from unionfs.mountflags import MountFlags


def remount(target: str, flags: MountFlags) -> None:
    """Change the flags of a FUSE mount that runs, in both places where the kernel has them (mount(2), MS_REMOUNT).

    Its server is not told, and stays as it was set up: so what it has a part in cannot be turned on. Raises MountError.
    """
    entry = mounts.find(target)
    if entry is None or not entry.type.startswith("fuse"):
        raise MountError(errno.EINVAL, f"{target} is no mount of ufs, so there is nothing to remount")
    present = _present(entry)
    wanted = flags.over(present)
    if wanted & ~present & (mountflags.SYNCHRONOUS | mountflags.DIRSYNC):
        raise MountError(errno.EINVAL, f"{target}: sync and dirsync are for a new mount; unmount it first")
    _remount(entry, wanted)
    if present & ~wanted & mountflags.RDONLY and not _has_upper(target):
        _remount(entry, present)
        raise MountError(errno.EROFS, f"{target}: has no upper directory, so nothing can be written; mount it with one")


def _present(entry: mounts.Entry) -> int:
    """The flags that a mount has. That access times are kept strictly has no word in mountinfo (show_mnt_opts())."""
    flags = MountFlags.of(entry.options).over(0)
    return flags if flags & (mountflags.NOATIME | mountflags.RELATIME) else flags | mountflags.STRICTATIME


def _remount(entry: mounts.Entry, flags: int) -> None:
    target = os.fsencode(entry.target)
    try:
        syscalls.mount(os.fsencode(entry.source), target, b"fuse", flags | mountflags.REMOUNT, b"")
    except OSError as error:
        what = {
            errno.EPERM: "only root may remount, and who mounted in a user namespace of his own; unmount it instead",
            errno.EBUSY: "files in it are open for writing; close them first",
        }.get(error.errno or 0, os.strerror(error.errno or 0))
        raise MountError(error.errno or 0, f"{entry.target}: {what}") from error


def _has_upper(target: str) -> bool:
    """Whether a mount takes changes, by one that cannot be made: removing an xattr that is not there."""
    try:
        os.removexattr(target, "user.none.to.remove")
    except OSError as error:
        return error.errno != errno.EROFS
    return True
