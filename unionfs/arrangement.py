"""Whether the directories that a mount is made of can be what they are to be."""

from __future__ import annotations

import errno
import os
import stat

_HINTS = {
    errno.ENOENT: "make it (mkdir -p), or correct its name",
    errno.ENOTDIR: "name a directory instead",
    errno.EACCES: "this user needs to read and enter it and to enter all above it (chmod, or another user)",
    errno.ENOTCONN: "it is a mount whose server has ended: unmount it first (fusermount3 -u, or umount)",
}
"""By the errno of a directory that was named: what to do."""


def _wrong(code: int, role: str, path: str) -> OSError:
    """The error of a directory that was named, with its role and what to do."""
    hint = _HINTS.get(code)
    return OSError(code, f"{os.strerror(code)} ({role})" + (f"; {hint}" if hint else ""), path)


def check_directory(role: str, path: str) -> None:
    """Raise `OSError` with the role in its text unless `path` is a directory that may be entered, an upper's also read.

    A lower directory that may be entered but not listed is one whose names are found all the same.
    """
    access = os.O_PATH if role == "lowerdir" else os.O_RDONLY
    try:
        os.close(os.open(os.path.join(path, "."), access | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        raise _wrong(error.errno or 0, role, path) from None
    if role == "workdir" and not os.access(path, os.W_OK):
        raise OSError(errno.EACCES, f"{os.strerror(errno.EACCES)} ({role}); this user needs to write in it", path)


def check_target(path: str) -> None:
    """Raise `OSError` unless `path` is a directory; it need not be readable, for it is what is mounted that will be."""
    try:
        is_directory = stat.S_ISDIR(os.stat(path).st_mode)
    except OSError as error:
        raise _wrong(error.errno or 0, "mount point", path) from None
    if not is_directory:
        raise _wrong(errno.ENOTDIR, "mount point", path)
