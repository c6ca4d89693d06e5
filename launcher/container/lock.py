"""The lock that says whether a container is in use: an open file description lock on its file `lock`.

fcntl(2), F_OFD_SETLK: it belongs to the open file, which fork passes on, so it is held for as long as any of the
container's own processes lives, however they end, and the kernel drops it with the last. F_OFD_GETLK asks without
taking, on any file system and also on a read-only one, so any number may look at once and disturb nobody.
"""

from __future__ import annotations

import fcntl
import os
import struct

_FLOCK = "hhqqi4x"  # struct flock of 64-bit kernels: type, whence, start, length, pid


def take(directory: str) -> int | None:
    """The descriptor that holds the lock of the container in `directory`; None while another process holds it.

    Raises FileNotFoundError where the container is gone, also where it goes at this moment.
    """
    descriptor = os.open(f"{directory}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _record(fcntl.F_WRLCK))
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: fcntl(2) leaves open which
        os.close(descriptor)
        return None
    if os.fstat(descriptor).st_nlink == 0 or not os.path.exists(directory):
        # Removed between open and lock: what is locked now is nobody's.
        os.close(descriptor)
        raise FileNotFoundError(f"{directory} was removed")
    return descriptor


def release(descriptor: int) -> None:
    """Let go of the lock, for all who inherited the descriptor, and close it."""
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _record(fcntl.F_UNLCK))
    os.close(descriptor)


def held(directory: str) -> bool:
    """Whether a process of the container lives. A container without a lock file has none."""
    try:
        descriptor = os.open(f"{directory}/lock", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _record(fcntl.F_WRLCK))
    finally:
        os.close(descriptor)
    return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)


def _record(kind: int) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, 0, 0, 0)
