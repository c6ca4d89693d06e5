"""Paths that lead somewhere or nowhere, by kind, and the calls that take one."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
from collections.abc import Callable
from itertools import count
from pathlib import Path

from tests.support.child import errno_in_child
from unionfs import syscalls

LONGEST = 4095
"""Bytes that a path may have (PATH_MAX of path_resolution(7) counts the zero)."""


def prepare(root: Path) -> None:
    """Beside the content: new things in "new", and names that are no more: "d/f", "void", "m" and what was in "d/e"."""
    for name in ("d/f", "void"):
        (root / name).unlink()
    for name in ("m", "d/e"):
        shutil.rmtree(root / name)
    for name in ("d/e", "new", "new/d", "new/dd", "new/full", "new/full/sub"):
        (root / name).mkdir()
    (root / "new/full/f").touch()
    for name in ("f", "source", "passed"):
        (root / "new" / name).write_text("new")
    (root / "new/passed").rename(root / "new/full/passed")
    for link, target in (("l", "f"), ("loop", "loop"), ("ping", "pong"), ("pong", "ping"), ("dangling", "nowhere")):
        (root / "new" / link).symlink_to(target)


PATHS: dict[str, list[str]] = {
    "no parent": [
        "none/x",
        "new/none/x",
        "void/x",
        "m/f",
        "d/e/x/f",
        "gone/x",
        "d/none/.",
        "void/..",
        "new/dangling/x",
    ],
    "in a file": ["a/x", "new/f/x", "new/full/f/..", "d/h/.", "p/x", "new/l/x"],
    "in a loop": ["new/loop/x", "new/ping/x/", "new/pong/."],
    "empty": [""],
    "256": ["x" * 256, "d/" + "x" * 256, "new/" + "x" * 256, "d/e/" + "é" * 128, "new/" + "x" * 256 + "/x"],
    "4096": ["d/g", "new/f", "void"],  # as `located` makes them
    "none": ["d/none", "new/none", "void", "m", "d/e/f", "empty/f", "new/passed", "d/" + "x" * 255, "é" * 127],
    "none/": ["d/nil/", "new/nil/", "gone/", "d/e/x/", "new/full/nil/"],
    "dangling": ["s", "d/l", "new/dangling"],
    "dangling/": ["s/", "d/l/", "new/dangling/"],
    "loop": ["new/loop", "new/ping"],
    "file": ["d/g", "a", "new/f", "new/full/passed", "4095"],
    "file/": ["d/g/", "big/", "new/f/", "new/l/"],
    "link": ["new/l"],
    "/.": ["d/.", "d/e/.", "empty/.", "new/.", "new/d/."],
    "/..": ["d/..", "d/e/..", "empty/..", "new/..", "new/d/.."],
    "dir": ["empty", "new/d"],
    "dir/": ["d/e/", "new/dd/"],
    "full": ["new/full", "d"],
}
"""What there is to a path -> such paths. Those that a call changes by success are none of another kind."""


def located(root: Path, kind: str, path: str) -> str:
    """A path of `PATHS` below `root`."""
    if kind == "4096":
        return _stretched(root, path, LONGEST + 1)
    return _stretched(root, "d/h", LONGEST) if path == "4095" else path and f"{root}/{path}"


def _stretched(root: Path, path: str, length: int) -> str:
    slashes = length - len(os.fsencode(f"{root}{path}"))
    return f"{root}{'/' * slashes}{path}"


def name_of_error(call: Callable[..., object], *paths: str) -> str:
    """The name of the errno that a call fails with, "ok" for none."""
    try:
        call(*paths)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "ok"


def _open(flags: int) -> Callable[[str], None]:
    return lambda path: os.close(os.open(path, flags | os.O_NONBLOCK, 0o600))


def _in_child(call: Callable[[], object]) -> None:
    """Raises the OSError that it gets in a process of its own."""
    if code := errno_in_child(call):
        raise OSError(code, os.strerror(code))


_libc = ctypes.CDLL(None, use_errno=True)


def _access(path: str) -> None:
    """access(2); os.access() does not tell why."""
    if _libc.access(os.fsencode(path), os.R_OK):
        raise OSError(ctypes.get_errno(), "access")


def link_following(source: str, target: str) -> None:
    """linkat(2) with AT_SYMLINK_FOLLOW, which os.link() passes with a dir_fd only."""
    if _libc.linkat(syscalls.AT_FDCWD, os.fsencode(source), syscalls.AT_FDCWD, os.fsencode(target), 0x400):
        raise OSError(ctypes.get_errno(), "linkat")


def calls(root: Path) -> dict[str, Callable[[str], object]]:
    """Calls by what they do with one path. Where a call takes two, the other one is right."""
    number = count()

    def fresh() -> str:
        return f"{root}/new/fresh{next(number)}"

    def source() -> str:
        path = Path(f"{root}/new/source")
        if not path.exists():  # the one before has moved
            path.touch()
        return str(path)

    return {
        "stat": os.stat,
        "lstat": os.lstat,
        "access": _access,
        "statvfs": os.statvfs,
        "chdir": lambda path: _in_child(lambda: os.chdir(path)),
        "execve": lambda path: _in_child(lambda: os.execve(path, ["x"], {})),
        "readlink": os.readlink,
        "listdir": os.listdir,
        "listxattr": os.listxattr,
        "getxattr": lambda path: os.getxattr(path, "user.none"),
        "removexattr": lambda path: os.removexattr(path, "user.none"),
        "setxattr": lambda path: os.setxattr(path, "user.set", b"1"),
        "read": _open(os.O_RDONLY),
        "path": _open(os.O_PATH | os.O_NOFOLLOW),
        "nofollow": _open(os.O_NOFOLLOW),
        "directory": _open(os.O_DIRECTORY),
        "write": _open(os.O_WRONLY),
        "trunc": _open(os.O_WRONLY | os.O_TRUNC),
        "creat": _open(os.O_WRONLY | os.O_CREAT),
        "excl": _open(os.O_WRONLY | os.O_CREAT | os.O_EXCL),
        "truncate": lambda path: os.truncate(path, 1 + next(number)),
        "chmod": lambda path: os.chmod(path, 0o755),
        "chown": lambda path: os.chown(path, os.getuid(), os.getgid()),
        "lchown": lambda path: os.lchown(path, os.getuid(), os.getgid()),
        "utime": os.utime,
        "mkdir": os.mkdir,
        "mknod": lambda path: os.mknod(path, stat.S_IFIFO | 0o600),
        "symlink": lambda path: os.symlink("target", path),
        "link": lambda path: os.link(path, fresh()),
        "link-to": lambda path: os.link(source(), path),
        "rename": lambda path: os.rename(path, fresh()),
        "rename-to": lambda path: os.rename(source(), path),
        "unlink": os.unlink,
        "rmdir": os.rmdir,
    }
