"""What a container changed as a layer: a tar of the changed names with whiteouts (OCI image spec, layer.md).

Two processes: one sees the host and compares the layer with the image (`listed`), the other stands in the container's
root and packs what shows there by the names it is told (`pack`). So whatever the form of the layer on disk, it is what
programs see that is packed: renamed directories with their content, owners by the id map, devices and owners that
stand in xattrs. The cost is that of what changed, not of the image.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from launcher.container.changes import DELETED, changes, without_mount_points
from launcher.transfer.pack import Packer
from unionfs import whiteout
from unionfs.fuse.wire import Attr
from unionfs.ownership import OVERFLOW_ID
from unionfs.tree import ROOT, Tree

if TYPE_CHECKING:
    from unionfs.image.tree import CompiledImage

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_GONE = (FileNotFoundError, NotADirectoryError)


def listed(upper: str, tree: Tree, created: Iterable[str], owners: bool) -> bytes:
    """The changes in an upper directory as records KIND PATH NUL, parents first. See `changes` for `owners`."""
    found = without_mount_points(changes(upper, tree, owners=owners), created)
    return b"".join(change.kind.encode() + change.path + b"\0" for change in found)


class LayerPacker:
    """Packs named files below this process's root. Owners that the container's id map does not have stay those of the
    image; with `single` it has one for everything.
    """

    def __init__(self, out: int, image: CompiledImage, single: bool) -> None:
        self._packer = Packer(out, self._owner)
        self._single = single
        self._image = image
        self._root = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._here: tuple[bytes, int] = (b"", self._root)
        self._links: dict[int, set[bytes]] = {}

    def pack(self, records: bytes) -> None:
        """All records of `listed`, the root where it is not as in the image, and what else is a name of a hard-linked
        file among them."""
        self._pack_root()
        for record in records.split(b"\0")[:-1]:
            kind, path = record[:1].decode(), record[2:]
            if kind == DELETED:
                above, _, name = _stored(path).rpartition(b"/")
                self._packer.empty((above + b"/" if above else b"") + whiteout.PREFIX + name)
            else:
                self._one(path)
        for number, packed in self._links.items():
            for path in set(self._other_names(number)) - packed:
                self._one(path, number)
        self._packer.finish()

    def _pack_root(self) -> None:
        shown, before = os.fstat(self._root), Attr.unpack(self._image.attr(ROOT))
        now: tuple[Any, ...] = (shown.st_mode, *self._owner(shown), shown.st_mtime_ns)
        if now != (before.mode, before.uid, before.gid, before.mtime * 10**9 + before.mtimensec):
            os.close(self._packer.add(self._root, b".", b"./"))

    def _one(self, path: bytes, number: int | None = None) -> None:
        """One name; one that has gone or become something else meanwhile is left out."""
        above, _, name = path.rpartition(b"/")
        try:
            parent = self._directory(above)
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if number not in (None, status.st_ino):
                return
            if not stat.S_ISDIR(status.st_mode) and status.st_nlink > 1 and status.st_ino <= self._image.rows:
                self._links.setdefault(status.st_ino, set()).add(path)
            entered = self._packer.add(parent, name, _stored(path))
        except _GONE:
            return
        if entered >= 0:
            os.close(entered)

    def _directory(self, path: bytes) -> int:
        if self._here[0] == path:
            return self._here[1]
        here = os.open(b".", _DIRECTORY, dir_fd=self._root)
        try:
            for part in path.split(b"/") if path else []:
                below = os.open(part, _DIRECTORY, dir_fd=here)
                os.close(here)
                here = below
        except BaseException:
            os.close(here)
            raise
        if self._here[1] != self._root:
            os.close(self._here[1])
        self._here = path, here
        return here

    def _owner(self, status: os.stat_result) -> tuple[int, int]:
        shown = status.st_uid, status.st_gid
        if status.st_ino > self._image.rows or not (self._single or OVERFLOW_ID in shown):
            return shown
        attr = Attr.unpack(self._image.attr(status.st_ino))
        return attr.uid, attr.gid

    def _other_names(self, number: int) -> Iterator[bytes]:
        """The paths of a file in the image."""
        for parent, name in self._image.names(number):
            parts = [name]
            while parent != ROOT:
                parent, above = self._image.names(parent)[0]
                parts.append(above)
            yield b"/".join(map(whiteout.shown, reversed(parts)))


def _stored(path: bytes) -> bytes:
    """In a layer, too, a name that begins with .wh. is a mark."""
    return b"/".join(map(whiteout.stored, path.split(b"/")))
