"""DirectoryStack: live directories merged into one read-only tree.

Names are resolved when they are asked for, so mounting costs nothing and the whole of `/` may be a layer:
submounts are crossed, what the server may not read gives EACCES. The directories should not be changed from
outside while a union lies over them (as with the kernel's overlayfs), unless it has a finite timeout: whatever
is kept of them, descriptors of directories and marks, is found anew after that. Symbolic links inside layers
are never followed.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from unionfs import override, whiteout, xattrnames
from unionfs.descriptors import Descriptors, share
from unionfs.fuse import wire
from unionfs.live import merge
from unionfs.live.attributes import LiveAttributes
from unionfs.live.inonumbers import InodeNumbers
from unionfs.live.layerdir import LayerDir, OpenDirectories
from unionfs.live.listings import Listings
from unionfs.live.nodes import LiveDirectory, LiveFile, LiveNodes
from unionfs.override import Override
from unionfs.tree import Entry, Run, new_generation

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NAME_MAX: Final = 255


class DirectoryStack:
    """A `unionfs.tree.Tree` over directories, the topmost first as in ``lowerdir=A:B``.

    `hide` are (st_dev, st_ino) of files and directories that do not exist for it, `hold` those of the directories that
    they are in. `skip` are absolute paths that are never touched, not even by a stat: a mount point that is served by
    this very process would wait for itself for ever. `count`: whether directories show their link counts. `timeout`:
    others may change the layers; what they did shows after so many seconds.
    Raises what opening the layers raises.
    """

    stable = False
    rows = 0
    max_uid = 0  # what stat(2) says is mapped already
    max_gid = 0

    def __init__(
        self,
        layers: Sequence[bytes],
        *,
        hide: Iterable[tuple[int, int]] = (),
        skip: Iterable[bytes] = (),
        hold: Iterable[tuple[int, int]] = (),
        count: bool = True,
        timeout: float = wire.FOREVER,
    ) -> None:
        self.timeout = timeout
        self.generation = new_generation()
        self._valid = wire.Validity(timeout, self.rows, self.generation)
        self._due = 0.0  # when what is kept of the layers is to be found again, by time.monotonic()
        self._hide = frozenset(hide)
        skipped = _by_directory(skip)
        self._pool = OpenDirectories(skip=skipped)
        self._file_systems = self._pool.file_systems
        self._files = Descriptors(share())
        self._mounted_files: set[int] = set()  # those of them that hold something mounted below a layer
        self._mounted_file = False  # whether the last that was opened does
        self._numbers = InodeNumbers()
        uncounted = {*skipped, *hold} if count else None
        self._packer = LiveAttributes(self._numbers, self._valid, uncounted)
        self._pack = self._packer.attr
        self._noatime = os.O_NOATIME
        self._recent: tuple[int, bytes] | None = None  # attributes of the last lookup; GETATTR often follows
        self._roots: list[LayerDir] = []
        try:
            for layer, path in enumerate(layers):
                self._roots.append(LayerDir.root(layer, path))
            self._overridden = [self._adopt(root) for root in self._roots]
        except OSError:
            self.close()
            raise
        self._nodes = LiveNodes(list(self._roots))
        self._listings = Listings(
            self._pool, self._nodes, self._numbers, self._hide, self._overridden,
            packer=self._packer, entry=self.entry, walks=not self._valid.finite,
        )  # fmt: skip

    def _adopt(self, root: LayerDir) -> bool:
        """Number the device of a layer and say whether it uses override_stat."""
        status = os.fstat(root.held)
        self._numbers.meet(status.st_dev)
        self._file_systems.meet(status.st_dev, root.held)
        root.skips = self._pool.skipped(status)
        names = _list_xattrs(whiteout.path(root.held), follow=True)
        return override.XATTR in names or override.SOME in names

    # Names.

    def lookup(self, parent: int, name: bytes) -> int:
        self._recent = self._look_up(parent, name)
        return self._recent[0] if self._recent is not None else 0

    def entry(self, parent: int, name: bytes) -> bytes | None:
        found = self._look_up(parent, name)
        if found is None:
            return None
        if self.boundless(found[0]):
            return self._valid.entry_once(*found)
        return self._valid.entry(*found)

    def _look_up(self, parent: int, name: bytes) -> tuple[int, bytes] | None:
        """Count a lookup: (node id, attributes), None where there is no such name."""
        found = self._find(parent, name)
        if found is None:
            return None
        status, place, layers = found
        changed = self._override(place, name, status) if self._overridden[place.layer] else None
        if layers:
            id = self._seen_directory(parent, name, layers)
        else:
            key = self._numbers.key(status, parent, name, self._file_systems.unsteady)
            id = self._nodes.seen_file(key, parent, place, name)
        return id, self._pack(status, changed, len(layers) > 1)

    def _seen_directory(self, parent: int, name: bytes, layers: list[LayerDir]) -> int:
        id, unused = self._nodes.seen_directory(parent, name, layers)
        for layer in unused:
            self._pool.drop(layer)
        return id

    def contains(self, parent: int, name: bytes) -> bool:
        found = self._find(parent, name)
        if found is None:
            return False
        for layer in found.layers:
            self._pool.drop(layer)
        return True

    def _find(self, parent: int, name: bytes) -> merge.Found | None:
        self._renew()
        directory = self._directory(parent)
        if len(name) > _NAME_MAX:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), name)
        if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
            raise OSError(errno.EINVAL, "not the name of a directory entry", name)
        if name.startswith(whiteout.PREFIX):
            return None
        stack = self._listings.asked(directory, name)
        found = merge.find(self._roots, stack, name, self._pool) if stack else None
        if found is not None and self._hide and (found.status.st_dev, found.status.st_ino) in self._hide:
            return None
        return found

    def _renew(self) -> None:
        """With a finite timeout: find the layers' directories and marks again, once in so many seconds."""
        if self._valid.finite and (now := time.monotonic()) >= self._due:
            self._due = now + self.timeout
            self._recent = None
            self._pool.renew()

    def _directory(self, id: int) -> LiveDirectory:
        directory = self._nodes.directory(id)
        if directory is None:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return directory

    def names(self, node: int) -> list[tuple[int, bytes]]:
        known = self._nodes[node]
        if isinstance(known, LiveFile):
            return known.names()
        return [(known.parent, known.name)] if known.parent else []

    def new_id(self) -> int:
        return self._nodes.new_id()

    def owns(self, node: int) -> bool:
        return node in self._nodes

    def remember(self, node: int) -> None:
        self._nodes.count(node)

    def forget(self, node: int, count: int) -> None:
        self._recent = None
        for id, known in self._nodes.forget(node, count):
            if isinstance(known, LiveFile):
                self._files.drop(id)
            else:
                for layer in known.layers:
                    self._pool.drop(layer)

    # Attributes.

    def attr(self, node: int) -> bytes:
        if self._recent is not None and self._recent[0] == node:
            attr = self._recent[1]
            self._recent = None  # the next question is a new one, and the host may have changed
            return attr
        self._renew()
        known = self._nodes[node]
        name, merged = None, False
        if isinstance(known, LiveDirectory):
            place, merged = known.layers[0], len(known.layers) > 1
            status = os.fstat(self._pool.fd(place))
        else:
            status, place, name = self._status(node, known)
        changed = self._override(place, name, status) if self._overridden[place.layer] else None
        return self._pack(status, changed, merged)

    def _status(self, id: int, node: LiveFile) -> tuple[os.stat_result, LayerDir, bytes]:
        """The status of a file by the first of its names that still leads to it. Raises ENOENT or ESTALE."""
        code = errno.ENOENT
        for place, name in node.places():
            try:
                status = os.stat(name, dir_fd=self._pool.fd(place), follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):
                continue
            if self._is(node, status):
                return status, place, name
            code = errno.ESTALE
        fd = self._files.get(id)
        if fd >= 0:  # removed on the host, but still open here
            return os.fstat(fd), node.place, node.name
        raise OSError(code, os.strerror(code))

    def _is(self, node: LiveFile, status: os.stat_result) -> bool:
        return self._numbers.same(node.identity, status, self._file_systems.unsteady)

    def _override(self, place: LayerDir, name: bytes | None, status: os.stat_result) -> Override | None:
        return override.read(whiteout.path(self._pool.fd(place), name), status, follow=name is None)

    def foreign_ino(self, device: int, ino: int) -> int:
        return self._numbers.shown(device, ino)

    # Listing.

    def entries(self, node: int, cookie: int = 0) -> Iterator[Entry]:
        self._renew()
        return self._listings.names(self._directory(node), cookie)

    def has_entries(self, node: int) -> bool:
        self._renew()
        return bool(self._listings.read(self._directory(node)).types)

    def listing(self, node: int, cookie: int, size: int) -> bytes | memoryview | None:
        self._renew()
        return self._listings.reply(node, self._directory(node), cookie, size)

    def ahead(self) -> bool:
        return self._listings.ahead.work()

    # Contents.

    def readlink(self, node: int) -> bytes:
        file = self._file(node)
        status, place, name = self._status(node, file)
        if stat.S_ISREG(status.st_mode):  # a symlink by override_stat keeps its target as its content
            return os.pread(self._open(node, file), 4096, 0)
        return os.readlink(name, dir_fd=self._pool.fd(place))

    def locate(self, node: int, offset: int, size: int) -> Run:
        fd = self._files.get(node)
        if fd < 0:
            fd = self._open(node, self._file(node))
        return Run(fd, offset, size)

    def seek(self, node: int, offset: int, whence: int) -> int:
        return os.lseek(self.locate(node, 0, 0).fd, offset, whence)

    def _file(self, id: int) -> LiveFile:
        node = self._nodes[id]
        if isinstance(node, LiveDirectory):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        return node

    def _open(self, id: int, node: LiveFile) -> int:
        """Open a regular file for reading. Raises ESTALE where no name of it leads to it any more."""
        fd = self._open_if(node, node.place, node.name)
        if fd < 0:  # its first name is gone: perhaps it has others
            _, place, name = self._status(id, node)
            fd = self._open_if(node, place, name)
        if fd < 0:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        self._files.put(id, fd)
        if self._mounted_file:
            self._mounted_files.add(id)
        return fd

    def _open_if(self, node: LiveFile, place: LayerDir, name: bytes) -> int:
        """Open a name if it still leads to this regular file; -1 otherwise."""
        try:
            fd = self._open_quietly(name, self._pool.fd(place))
        except OSError as error:
            # Gone, or something else by now: ELOOP is a symlink, ENXIO a socket or a device without a driver.
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
                return -1
            raise
        status = os.fstat(fd)
        if self._is(node, status) and stat.S_ISREG(status.st_mode):
            self._mounted_file = place.mounted or status.st_dev != place.device
            return fd
        os.close(fd)
        return -1

    def _open_quietly(self, name: bytes, dirfd: int) -> int:
        """Open without a trace in st_atime where that is allowed: for the owner and CAP_FOWNER (open(2))."""
        if self._noatime:
            try:
                return os.open(name, _READ | self._noatime, dir_fd=dirfd)
            except PermissionError as error:
                if error.errno != errno.EPERM:
                    raise
                self._noatime = 0  # files of others are here: do not try every file twice
        return os.open(name, _READ, dir_fd=dirfd)

    def xattrs(self, node: int) -> Mapping[bytes, bytes]:
        self._renew()
        known = self._nodes[node]
        name: bytes | None = None  # a directory by itself: "." in it could not be found where it may not be searched
        if isinstance(known, LiveDirectory):
            place = known.layers[0]
        else:
            _, place, name = self._status(node, known)
        path, follow = whiteout.path(self._pool.fd(place), name), name is None
        shown: dict[bytes, bytes] = {}
        for attribute in map(os.fsencode, _list_xattrs(path, follow)):
            own = xattrnames.shown(attribute, self._overridden[place.layer])
            if own is not None and (value := _get_xattr(path, attribute, follow)) is not None:
                shown[own] = value
        return shown

    # The whole.

    def give_up(self) -> None:
        self._files.close()
        self._pool.close()

    def boundless(self, node: int) -> bool:
        if not self._file_systems.pseudo:
            return False
        known = self._nodes[node]
        return isinstance(known, LiveFile) and known.place.device in self._file_systems.pseudo

    @property
    def holds_mounts(self) -> bool:
        return self._pool.holds_mounts or bool(self._mounted_files)

    def give_up_mounts(self) -> None:
        self._pool.give_up_mounts()
        for id in self._mounted_files:
            self._files.drop(id)
        self._mounted_files.clear()

    def statvfs(self) -> os.statvfs_result:
        return os.fstatvfs(self._roots[0].held)

    def close(self) -> None:
        self._files.close()
        self._pool.close()
        while self._roots:
            os.close(self._roots.pop().held)


def _by_directory(paths: Iterable[bytes]) -> dict[tuple[int, int], frozenset[bytes]]:
    """Paths by the (st_dev, st_ino) of the directory that they are in."""
    found: dict[tuple[int, int], frozenset[bytes]] = {}
    for path in paths:
        above, name = os.path.split(os.path.normpath(path))
        status = os.stat(above or b".")
        key = status.st_dev, status.st_ino
        found[key] = found.get(key, frozenset()) | {name}
    return found


def _list_xattrs(path: bytes, follow: bool = False) -> list[str]:
    try:
        return os.listxattr(path, follow_symlinks=follow)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise


def _get_xattr(path: bytes, name: bytes, follow: bool = False) -> bytes | None:
    try:
        return os.getxattr(path, name, follow_symlinks=follow)
    except OSError as error:
        # Gone since it was listed; or a user xattr of a file that we may not read (xattr(7)).
        if error.errno in (errno.ENODATA, errno.EACCES):
            return None
        raise
