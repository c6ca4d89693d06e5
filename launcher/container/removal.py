"""Removing directory trees of containers, whatever their depth and modes."""

from __future__ import annotations

import os


def vanish(directory: str) -> str:
    """Rename the whole directory of a container out of sight, and say where to. Any other path is left as it is."""
    above, name = os.path.split(directory)
    if os.path.basename(above) != "containers" or name.startswith("."):
        return directory
    hidden = f"{above}/.removed-{name}"
    try:
        os.rename(directory, hidden)
    except FileNotFoundError:  # someone was first
        return directory
    return hidden


def remove_tree(path: str) -> None:
    """Remove `path` and everything below it; a missing `path` is no error (someone finished before).

    Iterative and with one descriptor at a time: what a command made may be deeper than Python recurses, longer than
    PATH_MAX and more levels than a process may hold descriptors. Symbolic links are not followed. The
    caller must be the only one at work there, and needs the right to all of it: see `lifecycle.remove_as_owner`.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        here = os.open(path, flags)
    except FileNotFoundError:
        return
    names: list[str] = []
    try:
        while True:
            child = _clear(here)
            if child is not None:
                here = _step(here, child, flags)
                names.append(child)
            elif names:
                here = _step(here, "..", flags)
                os.rmdir(names.pop(), dir_fd=here)
            else:
                break
        if _is_kept_open(here):
            return
    finally:
        os.close(here)
    os.rmdir(path)


def _is_kept_open(directory: int) -> bool:
    """Whether nothing but files is left that some process has open, which FUSE file systems and NFS keep by such names.

    Here they are the container's lock and log, which its last process closes; `prune` then finds the empty directory.
    """
    left = os.listdir(f"/proc/self/fd/{directory}")
    return bool(left) and all(name.startswith((".fuse_hidden", ".nfs")) for name in left)


def _step(here: int, name: str, flags: int) -> int:
    there = os.open(name, flags, dir_fd=here)
    os.close(here)
    return there


def _clear(directory: int) -> str | None:
    """Unlink everything that is no directory; the name of one directory that is left, if any."""
    left = None
    with os.scandir(directory) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        if is_directory:
            left = name
        else:
            os.unlink(name, dir_fd=directory)
    return left
