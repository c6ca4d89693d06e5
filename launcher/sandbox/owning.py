"""The option U of a volume: all files in it become the container's user's."""

from __future__ import annotations

import os

from launcher.errors import UfsError
from launcher.sandbox import syscalls
from launcher.sandbox.user import User

_BENEATH = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS


def give(top: int, who: User, shown: str) -> None:
    """Change the owner of the file or directory `top`, an O_PATH descriptor, and of everything below it.

    Processes of other containers may be at work there. So directories are found from the top on, beneath it and without
    links, and never by "..": one that is moved away meanwhile is not followed to where it is then. `shown` names the
    volume in errors.
    """
    waiting = ["."] if os.path.isdir(f"/proc/self/fd/{top}") else []
    try:
        os.chown(f"/proc/self/fd/{top}", who.uid, who.gid)
        while waiting:
            path = waiting.pop()
            try:
                here = syscalls.openat2(path, os.O_RDONLY | os.O_DIRECTORY, resolve=_BENEATH, directory=top)
            except (FileNotFoundError, NotADirectoryError):
                continue  # removed or moved by somebody else
            try:
                waiting += [f"{path}/{name}" for name in _give_all(here, who)]
            finally:
                os.close(here)
    except OSError as error:
        raise UfsError(
            f"{shown}: cannot give its files to {who.uid}:{who.gid}: {error.strerror or error}; "
            "U is for files whose owners have an id in the container",
            125,
        ) from error


def _give_all(directory: int, who: User) -> list[str]:
    """Everything in one directory; the names of the directories in it."""
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                os.chown(entry.name, who.uid, who.gid, dir_fd=directory, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if entry.is_dir(follow_symlinks=False):
                found.append(entry.name)
    return found
