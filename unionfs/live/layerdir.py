"""Directories of layers, held by bounded numbers of descriptors.

A `LayerDir` is one directory of one layer, reached from its parent by one name, never through a symbolic
link and never by a whole path: so nothing leaves the layer, and no path is too long. Its O_PATH descriptor is
opened when needed and may be closed whenever others need room (`OpenDirectories`); it is then found again by
name from the nearest ancestor that is still open. The root of a layer stays open. A directory of something that is
mounted below it does not when nobody uses it, since the host could not unmount that.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from unionfs import whiteout
from unionfs.descriptors import share
from unionfs.live.filesystems import FileSystems, mount_id
from unionfs.whiteout import Marks

_NOTHING: Final[frozenset[bytes]] = frozenset()
_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class OpenDirectories:
    """The open descriptors of the directories of a tree, the longest unused ones closed first.

    `skip` are names that must not be touched, by the (st_dev, st_ino) of the directory that they are in.
    """

    def __init__(
        self, limit: int | None = None, skip: Mapping[tuple[int, int], frozenset[bytes]] | None = None
    ) -> None:
        self.limit = share() if limit is None else limit
        self.file_systems = FileSystems()
        self._skip = skip or {}
        self._used: OrderedDict[LayerDir, None] = OrderedDict()
        self._mounted: list[LayerDir] = []  # those open that hold a mount below a layer
        self.age = 0
        """How often everything was renewed: marks that are older are read again."""

    def fd(self, directory: LayerDir) -> int:
        """The O_PATH descriptor of a directory, good until the next call.

        Raises ENOENT where it vanished from its layer, or is a file or a symbolic link by now.
        """
        if directory.held >= 0:
            if directory.parent is not None:
                self._used.move_to_end(directory)
            return directory.held
        way = [directory]
        while (above := way[-1].parent) is not None and above.held < 0:
            way.append(above)
        assert above is not None, "the root of a layer is always open"
        fd = above.held
        for step in reversed(way):
            fd = step.held = _open(step.name, fd)
            self._used[step] = None
            if step.mounted:
                self._mounted.append(step)
            if len(self._used) > self.limit:
                self._close(next(iter(self._used)))
        return fd

    def cross(self, place: LayerDir, directory: LayerDir) -> None:
        """A directory in `place` is on another device, or has a name by which something is mounted somewhere."""
        try:
            fd = self.fd(directory)
        except OSError:
            return  # not to be entered: nothing will be held of it, and a request will say why
        self.file_systems.meet(directory.device, fd)
        directory.mounted = place.mounted or mount_id(fd) != mount_id(self.fd(place))
        if directory.mounted:
            self._mounted.append(directory)

    @property
    def holds_mounts(self) -> bool:
        """Whether anything is open that keeps the host from unmounting it."""
        return bool(self._mounted)

    def give_up_mounts(self) -> None:
        """Close what is; it is found again when it is needed."""
        for directory in self._mounted:
            self.drop(directory)
        self._mounted.clear()

    def skipped(self, status: os.stat_result) -> frozenset[bytes]:
        """The names not to be touched in the directory that has this status."""
        return self._skip.get((status.st_dev, status.st_ino), _NOTHING) if self._skip else _NOTHING

    def drop(self, directory: LayerDir) -> None:
        """Close what a forgotten directory holds."""
        if directory.held >= 0 and directory.parent is not None:
            self._close(directory)

    def _close(self, directory: LayerDir) -> None:
        del self._used[directory]
        fd, directory.held = directory.held, -1
        os.close(fd)

    def renew(self) -> None:
        """Let every directory be found again by its name, with its marks, for a layer may have changed."""
        self.close()
        self.age += 1

    def close(self) -> None:
        """Close all but the roots, whose owner closes them."""
        while self._used:
            self._close(next(iter(self._used)))


def _open(name: bytes, above: int) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=above)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name) from None
        raise


class LayerDir:
    """One directory of one layer. `held` belongs to `OpenDirectories`."""

    __slots__ = ("_age", "_aufs", "_marks", "device", "held", "layer", "mounted", "name", "parent", "skips")

    def __init__(self, layer: int, parent: LayerDir | None, name: bytes, held: int = -1) -> None:
        self.layer = layer
        """Number of the layer, the topmost is 0."""
        self.parent = parent
        self.name = name
        self.held = held
        self.device = -1
        """Its st_dev."""
        self.mounted = False
        """Whether it belongs to something that is mounted below the layer's root."""
        self.skips = _NOTHING
        """Names in it that are never touched, not even by a stat."""
        self._marks: Marks | None = None
        self._aufs: frozenset[bytes] | None = None
        self._age = 0

    @classmethod
    def root(cls, layer: int, path: bytes) -> LayerDir:
        """Open the root of a layer. Symlinks in `path` are followed: it is the caller's own word."""
        root = cls(layer, None, path, os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        root.device = os.fstat(root.held).st_dev
        return root

    def same_place(self, other: LayerDir) -> bool:
        """Whether both are found by the same name in the same directory."""
        return self.layer == other.layer and self.parent is other.parent and self.name == other.name

    def marks(self, pool: OpenDirectories) -> Marks:
        """The marks in its xattrs, read once."""
        if self._age != pool.age:
            self._outdated(pool)
        if self._marks is None:
            self._marks = whiteout.marks(pool.fd(self))
        return self._marks

    def _outdated(self, pool: OpenDirectories) -> None:
        self._age = pool.age
        self._marks = self._aufs = None

    def marked(self, pool: OpenDirectories, name: bytes) -> bool:
        """Whether ``.wh.NAME`` is in it.

        The names are read once, by listing the directory: cheaper than a stat for every name that is looked
        up. Where it may be searched but not listed there is a stat for every name.
        """
        if self._age != pool.age:
            self._outdated(pool)
        if self._aufs is None:
            try:
                self.scan(pool)
            except PermissionError:
                return whiteout.is_marked(pool.fd(self), name)
        assert self._aufs is not None
        return name in self._aufs

    def opaque(self, pool: OpenDirectories) -> bool:
        """Whether nothing of the layers below shows through it."""
        return self.marks(pool).opaque or whiteout.has_opaque_name(pool.fd(self))

    def scan(self, pool: OpenDirectories) -> whiteout.Listing:
        """Read it, and remember its ``.wh.`` names on the way. Raises EACCES where it may not be read."""
        listing = whiteout.scan(pool.fd(self), xwhiteouts=self.marks(pool).xwhiteouts)
        self._aufs = frozenset(listing.whiteouts)
        for name in self.skips:
            listing.names.pop(name, None)
        return listing

    def probe(self, pool: OpenDirectories, name: bytes) -> os.stat_result | whiteout.Whiteout | None:
        """What it says of one name, but for ``.wh.NAME``, which is `marked`."""
        if name in self.skips:
            return None
        try:
            fd = pool.fd(self)
        except FileNotFoundError:  # vanished from a live layer
            return None
        answer = whiteout.probe(fd, name, aufs=False)
        # Only an empty regular file makes it worth asking whether the directory may hold such whiteouts.
        if (
            isinstance(answer, os.stat_result)
            and not answer.st_size
            and answer.st_mode & 0o170000 == 0o100000
            and self.marks(pool).xwhiteouts
            and whiteout.is_xwhiteout(pool.fd(self), name, answer)
        ):
            return whiteout.WHITEOUT
        return answer
