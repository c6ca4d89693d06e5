"""Copying what a directory holds into another one, with owners, modes, times, links and extended attributes.

By descriptors and single names only: trees may be deeper than Python recurses and longer than PATH_MAX. Nobody else is
at work in either of the two.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple

from launcher.errors import complain
from unionfs.copying import copy_file

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class _Level(NamedTuple):
    """A directory that is being copied: its descriptors, and the names of directories in it that are still to do."""

    source: int
    target: int
    left: list[str]


def copy_contents(source: int, target: int) -> None:
    """Copy everything below the directory `source` into the empty directory `target`, both descriptors, owned here."""
    _Copy(target).run(source)


def dress(source: int, target: int) -> None:
    """Give the file or directory `target` owner, mode, extended attributes and times of `source`; both descriptors."""
    state = os.fstat(source)
    os.fchown(target, state.st_uid, state.st_gid)
    os.fchmod(target, stat.S_IMODE(state.st_mode))  # after the owner: a change of that takes set-id bits away
    for name in os.listxattr(source):
        # ENOTSUP: the store's file system has no such attributes; ENODATA: made up by the kernel while one looks;
        # EPERM: security labels, which are the machine's own.
        try:
            os.setxattr(target, name, os.getxattr(source, name))
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.ENODATA, errno.EPERM):
                raise
    os.utime(target, ns=(state.st_atime_ns, state.st_mtime_ns))


class _Copy:
    """One copy. `_links`: where the first name of a file with several is, by device and inode."""

    def __init__(self, target: int) -> None:
        self._root = target
        self._links: dict[tuple[int, int], str] = {}
        self._path: list[str] = []

    def run(self, source: int) -> None:
        levels: list[_Level] = []
        try:
            self._begin(levels, os.dup(source), os.dup(self._root))
            while levels:
                level = levels[-1]
                if level.left:
                    name = level.left.pop()
                    os.mkdir(name, 0o700, dir_fd=level.target)
                    self._path.append(name)
                    there = os.open(name, _DIRECTORY, dir_fd=level.source)
                    self._begin(levels, there, os.open(name, _DIRECTORY, dir_fd=level.target))
                else:
                    levels.pop()
                    if levels:
                        dress(level.source, level.target)
                        self._path.pop()
                    _close(level)
        finally:
            for level in levels:
                _close(level)

    def _begin(self, levels: list[_Level], source: int, target: int) -> None:
        level = _Level(source, target, [])
        levels.append(level)
        with os.scandir(source) as entries:
            found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
        for name, state in found:
            if stat.S_ISDIR(state.st_mode):
                level.left.append(name)
            elif not self._is_linked(name, state, target):
                self._copy(name, state, level)

    def _is_linked(self, name: str, state: os.stat_result, target: int) -> bool:
        if state.st_nlink < 2:
            return False
        first = self._links.setdefault((state.st_dev, state.st_ino), "/".join([*self._path, name]))
        if first == "/".join([*self._path, name]):
            return False
        try:
            os.link(first, name, src_dir_fd=self._root, dst_dir_fd=target, follow_symlinks=False)
        except OSError as error:
            # Too long a path, too many links, or a file that was left out: then it is a file of its own.
            if error.errno not in (errno.ENAMETOOLONG, errno.EMLINK, errno.ENOENT):
                raise
            return False
        return True

    def _copy(self, name: str, state: os.stat_result, level: _Level) -> None:
        kind = stat.S_IFMT(state.st_mode)
        if kind == stat.S_IFREG:
            _copy_file(name, level)
            return
        if kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=level.source), name, dir_fd=level.target)
        else:
            try:
                os.mknod(name, state.st_mode, state.st_rdev, dir_fd=level.target)
            except PermissionError:  # a device: mknod(2) needs more than a user namespace gives
                complain(f"{'/'.join([*self._path, name])} is a device and was left out of the volume")
                return
        os.chown(name, state.st_uid, state.st_gid, dir_fd=level.target, follow_symlinks=False)
        if kind != stat.S_IFLNK:
            os.chmod(name, stat.S_IMODE(state.st_mode), dir_fd=level.target)
        os.utime(name, ns=(state.st_atime_ns, state.st_mtime_ns), dir_fd=level.target, follow_symlinks=False)


def _close(level: _Level) -> None:
    os.close(level.source)
    os.close(level.target)


def _copy_file(name: str, level: _Level) -> None:
    source = os.open(name, _FILE, dir_fd=level.source)
    try:
        target = os.open(name, _NEW, 0o600, dir_fd=level.target)
        try:
            copy_file(source, target, os.fstat(source).st_size)
            dress(source, target)
        finally:
            os.close(target)
    finally:
        os.close(source)
