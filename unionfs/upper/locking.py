"""One mount at a time: the upper and the work directory are locked (flock(2)) for as long as the server lives.

A mount that ended, by umount(8) or with its namespace, leaves a server that needs a moment to see it. Who mounts the
same directories again waits for that, but not for a mount that is still to be seen.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from typing import Final

PATIENCE: Final = 5.0
"""Seconds to wait for a server that ends."""

_MOUNT_POINT: Final = b"mounted"
"""In the work directory: where the union is mounted, for the message to whoever comes second."""


def lock(directory: int, role: str, path: bytes | str, work: int) -> None:
    """Lock an open directory. Raises EBUSY where another mount has it; `work` is that mount's work directory, or -1."""
    deadline, pause = time.monotonic() + PATIENCE, 0.002
    while True:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            place = _still_mounted(work) if work >= 0 else ""
            if place or time.monotonic() >= deadline:
                where = f", on {place}" if place else ""
                message = f"the {role} is in use by another mount{where}; unmount that first, or name another directory"
                raise OSError(errno.EBUSY, message, path) from error
        except OSError as error:
            # No such locks here, or, as on NFS, none for what is open for reading alone: then nobody is kept off.
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF):
                raise
            return
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


def note_mount_point(work: int, target: str) -> None:
    """Say where the union with this work directory gets mounted."""
    fd = os.open(_MOUNT_POINT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=work)
    with os.fdopen(fd, "wb") as file:
        file.write(os.fsencode(target))


def _still_mounted(work: int) -> str:
    """Where it is mounted in this mount namespace; empty where it is not, or only in another one."""
    from unionfs import mounts

    try:
        with os.fdopen(os.open(_MOUNT_POINT, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=work), "rb") as file:
            target = os.fsdecode(file.read())
    except FileNotFoundError:  # not yet, or of a container
        return ""
    found = mounts.find(target)
    return target if found is not None and found.type.startswith("fuse") else ""
