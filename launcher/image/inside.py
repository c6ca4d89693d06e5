"""Looking into an image without mounting it: names, attributes and contents, links resolved within the image alone."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from launcher.errors import UfsError
from unionfs import whiteout
from unionfs.fuse.wire import Attr
from unionfs.tree import ROOT, Tree

_MAX_LINKS = 40  # as the kernel has it (MAXSYMLINKS of include/linux/namei.h)
_CHUNK = 1 << 20


class Found(NamedTuple):
    """Something in an image; `path` is absolute, as it was asked for."""

    path: bytes
    node: int
    attr: Attr


class Inside:
    """A tree by path. Errors are UfsErrors that name the path."""

    def __init__(self, tree: Tree, label: str) -> None:
        self._tree = tree
        self._label = label

    def find(self, path: bytes, follow: bool = True) -> Found:
        """What is at a path; `follow`: where a symbolic link at its end leads."""
        node = self._resolve(path, follow)
        shown = b"/" + b"/".join(part for part in path.split(b"/") if part not in (b"", b"."))
        return Found(shown, node, self._attr(node))

    def entries(self, directory: Found) -> list[Found]:
        """What is in a directory, sorted by name."""
        prefix = directory.path.rstrip(b"/")
        found = [
            Found(prefix + b"/" + whiteout.shown(entry.name), node, self._attr(node))
            for entry in self._tree.entries(directory.node)
            if (node := self._tree.lookup(directory.node, entry.name))
        ]
        return sorted(found)

    def walk(self, top: Found, depth: int | None = None) -> Iterator[Found]:
        """A directory or file with all that is below, parents first. `depth` as of find(1)."""
        todo = [(top, 0)]
        while todo:
            found, level = todo.pop()
            yield found
            if stat.S_ISDIR(found.attr.mode) and (depth is None or level < depth):
                todo += [(below, level + 1) for below in reversed(self.entries(found))]

    def link(self, found: Found) -> bytes:
        """The target of a symbolic link."""
        return self._tree.readlink(found.node)

    def xattrs(self, found: Found) -> dict[bytes, bytes]:
        """Extended attributes."""
        return dict(self._tree.xattrs(found.node))

    def read(self, found: Found) -> Iterator[bytes]:
        """The bytes of a regular file in pieces; holes as zeros."""
        if not stat.S_ISREG(found.attr.mode):
            kind = "a directory" if stat.S_ISDIR(found.attr.mode) else "no file with contents"
            raise UfsError(f"{self._label}:{os.fsdecode(found.path)} is {kind}")
        offset = 0
        while offset < found.attr.size:
            fd, start, length = self._tree.locate(found.node, offset, min(_CHUNK, found.attr.size - offset))
            piece = bytes(length) if fd < 0 else os.pread(fd, length, start)
            if not piece:
                raise UfsError(f"{self._label}:{os.fsdecode(found.path)} ends early: its layer is damaged; ufs fsck")
            offset += len(piece)
            yield piece

    def _attr(self, node: int) -> Attr:
        return Attr.unpack(self._tree.attr(node))

    def _resolve(self, path: bytes, follow: bool) -> int:
        trail = [ROOT]
        todo = [part for part in reversed(path.split(b"/")) if part]
        links = 0
        while todo:
            part = todo.pop()
            if part == b".":
                continue
            if part == b"..":
                trail = trail[:-1] or [ROOT]  # ".." of the root is the root
                continue
            node = self._step(trail[-1], part, path)
            if stat.S_ISLNK(self._attr(node).mode) and (todo or follow):
                links += 1
                if links > _MAX_LINKS:
                    raise self._error(errno.ELOOP, path)
                target = self._tree.readlink(node)
                if target.startswith(b"/"):
                    trail = [ROOT]
                todo += [part for part in reversed(target.split(b"/")) if part]
            else:
                trail.append(node)
        return trail[-1]

    def _step(self, directory: int, name: bytes, path: bytes) -> int:
        try:
            node = self._tree.lookup(directory, whiteout.stored(name))
        except OSError as error:
            raise self._error(error.errno or errno.EIO, path) from None
        if not node:
            raise self._error(errno.ENOENT, path)
        return node

    def _error(self, code: int, path: bytes) -> UfsError:
        return UfsError(f"{self._label}:{os.fsdecode(path)}: {os.strerror(code)}")
