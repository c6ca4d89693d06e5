"""statx(2) that asks for some attributes alone, as `stat -c %a` does: the kernel may answer from what it has."""

from __future__ import annotations

import ctypes
import os
import stat
from pathlib import Path

_AT_FDCWD, _AT_SYMLINK_NOFOLLOW, _STATX_MODE = -100, 0x100, 0x2
_libc = ctypes.CDLL(None, use_errno=True)


def mode_alone(path: Path) -> int:
    """The permission bits, set-id bits and sticky bit, and nothing else asked for."""
    buffer = ctypes.create_string_buffer(256)
    if _libc.statx(_AT_FDCWD, os.fsencode(path), _AT_SYMLINK_NOFOLLOW, _STATX_MODE, buffer):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    return stat.S_IMODE(int.from_bytes(buffer[28:30], "little"))
