"""What directories of a `DirectoryStack` hold: the merged names, and whole READDIRPLUS replies.

Of a merged listing it is known which layer has a name, so one stat(2) there is enough for a file, however many layers
there are. A walk lists one directory after the other; while its client is busy with one, those below it are read ahead.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from unionfs import override, whiteout
from unionfs.fuse import wire
from unionfs.live.ahead import Ahead
from unionfs.live.attributes import LEAST_RECORD, LiveAttributes, record_size
from unionfs.live.inonumbers import InodeNumbers
from unionfs.live.layerdir import LayerDir, OpenDirectories
from unionfs.live.merge import below
from unionfs.live.names import Listed, Names
from unionfs.live.nodes import LiveDirectory, LiveNodes
from unionfs.tree import DOT, DOTDOT, Entry

_DIRECTORY: Final = stat.S_IFDIR >> 12
_UNKNOWN: Final = 0
_LIST_AFTER: Final = 4
"""Lookups: then a directory of several layers is listed to answer the others."""


class Listings:
    """The listings of one tree.

    `hide` as for `DirectoryStack`; `overridden` says which layers use override_stat; `entry` looks up any name;
    `walks`: directories may be read ahead, because nobody changes them.
    """

    def __init__(
        self,
        pool: OpenDirectories,
        nodes: LiveNodes,
        numbers: InodeNumbers,
        hide: frozenset[tuple[int, int]],
        overridden: list[bool],
        packer: LiveAttributes,
        entry: Callable[[int, bytes], bytes | None],
        walks: bool,
    ) -> None:
        self._pool = pool
        self._nodes = nodes
        self._numbers = numbers
        self._hide = hide
        self._overridden = overridden
        self._packer = packer
        self._entry = entry
        self._walks = walks
        self._unsteady, self._pseudo = pool.file_systems.unsteady, pool.file_systems.pseudo
        self.ahead = Ahead(self)

    # Names.

    def names(self, directory: LiveDirectory, cookie: int) -> Iterator[Entry]:
        """The entries after a cookie, read anew from the beginning."""
        if directory.listed is None or not cookie:
            self._list(directory, self.read(directory))
        assert directory.listed is not None
        return directory.listed.after(cookie)

    def asked(self, directory: LiveDirectory, name: bytes) -> Sequence[LayerDir]:
        """Those of a directory's layers, topmost first, that may have a name which is looked up; none where it is not
        there. After some names, listing all layers once is cheaper than asking one after the other each time.
        """
        layers = directory.layers
        if len(layers) == 1 or not self._walks:
            return layers
        if directory.names is None:
            directory.asked += 1
            if directory.asked < _LIST_AFTER:
                return layers
            try:
                directory.names = self.read(directory)
            except PermissionError:  # it may be searched but not listed: count anew before the next try
                directory.asked = 0
                return layers
        type_ = directory.names.types.get(name)
        if type_ is None:
            return ()
        place = directory.names.below.get(name) or layers[0]
        if type_ in (_UNKNOWN, _DIRECTORY) or self._overridden[place.layer]:
            return layers[layers.index(place) :]  # those below may be a part of it
        return (place,)

    @staticmethod
    def _list(directory: LiveDirectory, names: Names) -> None:
        directory.below = names.below
        if directory.listed is None:
            directory.listed = Listed(names.types)
        else:
            directory.listed.update(names.types)

    def read(self, directory: LiveDirectory) -> Names:
        """The merged names of a directory. Raises EACCES where a layer may not be read."""
        merged = Names()
        hidden: set[bytes] = set()
        for layer in directory.layers:
            try:
                types, whiteouts, _ = layer.scan(self._pool)
            except FileNotFoundError:  # removed on the host: nothing is in it
                continue
            if self._hide:
                self._without_hidden(layer, types)
            if self._overridden[layer.layer]:
                self._with_types(layer, types)
            if layer is directory.layers[0]:
                merged.types = types
            else:
                for name, type_ in types.items():
                    if name not in merged.types and name not in hidden:
                        merged.types[name] = type_
                        merged.below[name] = layer
            hidden |= whiteouts
        return merged

    def _without_hidden(self, layer: LayerDir, types: dict[bytes, int]) -> None:
        """Take out what is hidden. Its number in the listing is of no use: a mount point has two."""
        fd = self._pool.fd(layer)
        for name in [name for name, type_ in types.items() if type_ == whiteout.DT_DIR]:
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except OSError:
                continue  # gone, or a mount that does not answer: looking it up will say so
            if (status.st_dev, status.st_ino) in self._hide:
                del types[name]

    def _with_types(self, layer: LayerDir, types: dict[bytes, int]) -> None:
        """In a layer with override_stat a regular file may stand for a device, pipe, socket or symlink."""
        fd = self._pool.fd(layer)
        for name in [name for name, type_ in types.items() if type_ == whiteout.DT_REG]:
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                changed = override.read(whiteout.path(fd, name), status)
            except FileNotFoundError:
                continue
            except OSError:  # not to be looked at, or malformed: a lookup will say so
                types[name] = whiteout.DT_UNKNOWN
                continue
            if changed is not None:
                types[name] = stat.S_IFMT(changed.mode) >> 12

    # Whole replies.

    def reply(self, id: int, directory: LiveDirectory, cookie: int, size: int) -> bytes:
        """A READDIRPLUS reply of at most `size` bytes, from after `cookie` on; every entry counts as a lookup."""
        records: list[bytes] = []
        if cookie < DOTDOT:
            records.extend(self._dots(directory, cookie))
            size -= sum(map(len, records))
        statuses: dict[bytes, os.stat_result] = {}
        if directory.listed is None or cookie <= DOTDOT:  # a seekdir(3) may come before any listing
            names = self.ahead.take(directory) or self.read(directory)
            self._list(directory, names)
            statuses = names.statuses
        assert directory.listed is not None
        for name, type_, after in directory.listed.rows(cookie, size // LEAST_RECORD):
            size -= record_size(name)
            if size < 0:
                break
            records.append(self._record(id, directory, name, type_, after, statuses.get(name)))
        self._go_on(directory)
        return b"".join(records)

    def _go_on(self, directory: LiveDirectory) -> None:
        """Let what is in a directory be read ahead, if the one above was listed, too: a walk and not one look."""
        above = self._nodes.directory(directory.parent) if directory.parent else None
        if above is not None and above.listed is not None and directory.children and self._walks:
            self.ahead.listed(map(self._nodes.known_directory, directory.children.values()))

    def _record(
        self, id: int, directory: LiveDirectory, name: bytes, type_: int, after: int, status: os.stat_result | None
    ) -> bytes:
        """One entry, b"" for what is not there any more. `status`: where it was looked at before."""
        try:
            status = status or self.status(directory, name, type_)
            if status is None:
                return self._by_lookup(id, name, after)
        except FileNotFoundError:  # removed on the host since it was listed
            return b""
        except OSError:
            return wire.unknown_direntplus(after, whiteout.shown(name))
        if self._hide and (status.st_dev, status.st_ino) in self._hide:
            return b""
        place = directory.below.get(name) or directory.layers[0]
        if type_ == _DIRECTORY:
            child, unused = self._nodes.seen_directory(id, name, [below(place, name, status, self._pool)])
            for layer in unused:
                self._pool.drop(layer)
        else:
            key = self._numbers.key(status, id, name, self._unsteady)
            child = self._nodes.seen_file(key, id, place, name)
        return self._packer.record(child, status, after, whiteout.shown(name))

    def _by_lookup(self, id: int, name: bytes, after: int) -> bytes:
        entry = self._entry(id, name)
        if entry is None:
            return b""
        ino = int.from_bytes(entry[wire.ENTRY_INO], "little")
        type_ = int.from_bytes(entry[wire.ENTRY_MODE], "little") >> 12
        return entry + wire.dirent(ino, after, type_, whiteout.shown(name))

    def status(self, directory: LiveDirectory, name: bytes, type_: int) -> os.stat_result | None:
        """The status of a listed name that is all there is to it; None where it takes a lookup to know."""
        place = directory.below.get(name) or directory.layers[0]
        if self._overridden[place.layer] or place.device in self._pseudo:
            return None
        if type_ == _DIRECTORY and place.layer != len(self._overridden) - 1:
            return None  # those below may have it, too, or it may be redirected
        status = os.stat(name, dir_fd=self._pool.fd(place), follow_symlinks=False)
        changed = (status.st_mode & 0o170000 == stat.S_IFDIR) != (type_ == _DIRECTORY)
        return None if changed else status

    def _dots(self, directory: LiveDirectory, cookie: int) -> list[bytes]:
        above = self._nodes.directory(directory.parent) if directory.parent else directory
        assert above is not None
        nothing = bytes(wire.ENTRY_SIZE)
        dots = [nothing + wire.dirent(self._ino(above), DOTDOT, _DIRECTORY, b"..")]
        if not cookie:
            dots.insert(0, nothing + wire.dirent(self._ino(directory), DOT, _DIRECTORY, b"."))
        return dots

    def _ino(self, directory: LiveDirectory) -> int:
        if not directory.ino:
            status = os.fstat(self._pool.fd(directory.layers[0]))
            directory.ino = self._numbers.shown(status.st_dev, status.st_ino)
        return directory.ino
