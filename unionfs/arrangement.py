"""Whether the directories that a mount is made of can be what they are to be."""

from __future__ import annotations

import errno
import os
import stat

from unionfs.options import Options

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


Identity = tuple[int, int]


def identity(path: str) -> Identity:
    """(st_dev, st_ino) of a directory, by which it is known whatever led to it."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


def inside(path: str, above: str) -> bool:
    """Whether `path` is `above` or lies below it."""
    wanted = identity(above)
    path = os.path.realpath(path)
    while identity(path) != wanted:
        if path == "/":
            return False
        path = os.path.dirname(path)
    return True


def check_apart(options: Options, target: str) -> None:
    """Raise `OSError` where the directories lie in one another so that the union would change what it reads, or itself.

    Allowed are an upper and a work directory below a lower one, which does not show them; a mount point that is one of
    the others or above them, since they are open before it is covered; and one below a lower directory.
    """
    upper, work = options.upper, options.work
    if upper is None or work is None:
        return
    for layer in options.lower:
        if identity(layer) == identity(upper):
            raise _entangled(upper, "the upper directory cannot be a lower directory, too")
        if inside(layer, upper):
            raise _entangled(layer, "a lower directory cannot lie in the upper directory")
        if inside(layer, work):
            raise _entangled(layer, "a lower directory cannot be the work directory or lie in it")
    if inside(work, upper) or inside(upper, work):
        raise _entangled(work, "the work directory and the upper directory cannot be one or lie in one another")
    if inside(target, work):
        raise _entangled(target, "the mount point cannot be the work directory or lie in it")
    if inside(target, upper) and identity(target) != identity(upper):
        raise _entangled(target, "the mount point cannot lie in the upper directory")


def _entangled(path: str, what: str) -> OSError:
    return OSError(errno.EINVAL, f"{what}; name another", path)
