"""Filling a new volume from the image: its content at that place, and the owner and mode of the directory.

It happens at the first start that shows the volume, by process 1 of the container, which has the image before it and
the ids of its files: before anything is mounted on the image, so that no volume plays a part in what is found there.

What a kill leaves is never half a volume. In the volume's directory:

    fresh     there until it is known what the volume begins with
    filling/  being copied; left by a kill it is removed, and the copy begins again
    filled/   copied whole (`filling` renamed); its entries are renamed into _data/, also by whoever comes after a kill

A flock(2) on the volume's directory lets one container fill, and others wait that start at the same time. Who starts
several takes these locks in the order of their names.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from typing import NamedTuple

from launcher.container.removal import remove_tree
from launcher.errors import UfsError, describe
from launcher.sandbox import copying, syscalls
from launcher.sandbox.spec import Volume

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_INSIDE = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS | syscalls.RESOLVE_NO_XDEV


class Claim(NamedTuple):
    """A fresh and empty volume, and a descriptor of its directory that holds the lock."""

    volume: Volume
    directory: int


def claim(volumes: list[Volume]) -> list[Claim]:
    """Before the change of root: the volumes that this container is to fill."""
    found, seen = [], set()
    for volume in sorted(volumes, key=lambda one: one.name):
        directory = os.path.dirname(volume.source)
        if volume.kind != "volume" or volume.name in seen or not os.path.exists(f"{directory}/fresh"):
            continue
        if "nocopy" in volume.options:
            continue
        seen.add(volume.name)
        lock = os.open(directory, _OPEN)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _settled(directory, lock):
            os.close(lock)
        else:
            found.append(Claim(volume, lock))
    return found


def fill(claims: list[Claim]) -> None:
    """After the change of root, before anything is mounted that an image's directory could be mistaken for."""
    for volume, directory in claims:
        try:
            source = _source(volume.target)
            if source is not None:
                _fill(source, directory)
                os.close(source)
        except OSError as error:
            where = f"{volume.target} of the image"
            raise UfsError(
                f"volume {volume.name} cannot be filled from {where}: {describe(error)}; "
                "to leave it empty, write :nocopy after the place",
                125,
            ) from error
        finally:
            os.close(directory)


def _settled(directory: str, lock: int) -> bool:
    """Whether it needs no filling: it was done, has content already, or was copied by one who was killed then."""
    if not os.path.exists(f"{directory}/fresh"):
        return True
    remove_tree(f"{directory}/filling")
    if os.path.isdir(f"{directory}/filled"):
        _publish(lock)
        return True
    if os.listdir(f"{directory}/_data"):
        os.unlink(f"{directory}/fresh")
        return True
    return False


def _source(path: str) -> int | None:
    """The image's directory at `path`; None where the image has none there."""
    try:
        return syscalls.openat2(path, os.O_RDONLY | os.O_DIRECTORY, resolve=_INSIDE)
    except OSError as error:
        # Nothing there, a file, links in a circle, or a file system of the kernel.
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV):
            return None
        raise


def _fill(source: int, directory: int) -> None:
    data = os.open("_data", _OPEN, dir_fd=directory)
    state = os.fstat(source)
    os.fchown(data, state.st_uid, state.st_gid)
    os.fchmod(data, stat.S_IMODE(state.st_mode))
    os.close(data)
    if not os.listdir(source):
        return  # it stays fresh, for an image that has something there
    os.mkdir("filling", 0o700, dir_fd=directory)
    target = os.open("filling", _OPEN, dir_fd=directory)
    copying.copy_contents(source, target)
    os.close(target)
    os.rename("filling", "filled", src_dir_fd=directory, dst_dir_fd=directory)
    _publish(directory)


def _publish(directory: int) -> None:
    """Move what was copied to its place. What somebody who has the volume already made there meanwhile stays."""
    filled, data = os.open("filled", _OPEN, dir_fd=directory), os.open("_data", _OPEN, dir_fd=directory)
    there = set(os.listdir(data))
    for name in os.listdir(filled):
        if name not in there:
            os.rename(name, name, src_dir_fd=filled, dst_dir_fd=data)
    os.close(filled)
    os.close(data)
    os.unlink("fresh", dir_fd=directory)
    try:
        os.rmdir("filled", dir_fd=directory)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:  # what had no place is looked at by nobody, and goes with the volume
            raise
