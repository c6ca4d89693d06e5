"""The nodes that the kernel knows of a tree of live directories.

A directory is identified by its parent and its name, everything else by the inode that it is on the host, so
that all names of a hard-linked file are one node; but see `InodeNumbers.key`. Ids are never given out twice.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Sequence

from unionfs.live.inonumbers import Key
from unionfs.live.layerdir import LayerDir
from unionfs.live.names import Listed, Names
from unionfs.tree import ROOT


class LiveFile:
    """Anything but a directory. `place` and `name` say where it was seen first, `others` where else."""

    __slots__ = ("identity", "lookups", "name", "others", "parent", "place")

    def __init__(self, identity: Key, parent: int, place: LayerDir, name: bytes) -> None:
        self.identity = identity
        self.parent = parent
        self.place = place
        self.name = name
        self.lookups = 0
        self.others: dict[tuple[int, bytes], LayerDir] | None = None

    def places(self) -> Sequence[tuple[LayerDir, bytes]]:
        """Where it can be found on the host."""
        first = self.place, self.name
        return [first, *((place, name) for (_, name), place in self.others.items())] if self.others else (first,)

    def names(self) -> list[tuple[int, bytes]]:
        """Its names in the merged tree."""
        return [(self.parent, self.name), *(self.others or ())]


class LiveDirectory:
    """A merged directory: `layers` are those that have it, topmost first."""

    __slots__ = ("asked", "below", "children", "ino", "kept", "layers", "listed", "lookups", "name", "names", "parent")

    def __init__(self, parent: int, name: bytes, layers: list[LayerDir]) -> None:
        self.parent = parent
        self.name = name
        self.layers = layers
        self.lookups = 0
        self.kept = 0
        """How many names of known nodes are in it; it stays while there are any."""
        self.children: dict[bytes, int] | None = None
        """The known directories in it."""
        self.listed: Listed | None = None
        self.below: dict[bytes, LayerDir] = {}
        """Where listed names are that the topmost layer lacks."""
        self.asked = 0
        """How many names were looked up in it, as far as that counts."""
        self.names: Names | None = None
        """What it holds, kept where that saves asking layer after layer."""
        self.ino = 0
        """st_ino as shown, 0 where nobody has looked."""


class LiveNodes(dict[int, LiveFile | LiveDirectory]):
    """All known nodes by id, and by identity and by name. Raises ESTALE for an id that the kernel cannot know."""

    def __init__(self, roots: list[LayerDir]) -> None:
        self._ids = itertools.count(ROOT + 1)
        self._by_identity: dict[Key, int] = {}
        self[ROOT] = LiveDirectory(0, b"", roots)

    def __missing__(self, id: int) -> LiveFile | LiveDirectory:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    def new_id(self) -> int:
        """An id that is not given to any node here."""
        return next(self._ids)

    def directories(self) -> list[LiveDirectory]:
        """All known directories."""
        return [node for node in self.values() if isinstance(node, LiveDirectory)]

    def directory(self, id: int) -> LiveDirectory | None:
        """The node if it is a directory."""
        node = self[id]
        return node if isinstance(node, LiveDirectory) else None

    def seen_file(self, identity: Key, parent: int, place: LayerDir, name: bytes) -> int:
        """A lookup found a file: its id, counted."""
        id = self._by_identity.get(identity)
        if id is None:
            id = next(self._ids)
            node = LiveFile(identity, parent, place, name)
            self._by_identity[identity] = id
            self[id] = node
            self.known_directory(parent).kept += 1
        else:
            node = self._file(id)
            if node.parent == parent and node.name == name:
                node.place = place
            else:
                if node.others is None:
                    node.others = {}
                if (parent, name) not in node.others:
                    self.known_directory(parent).kept += 1
                node.others[parent, name] = place
        node.lookups += 1
        return id

    def seen_directory(self, parent: int, name: bytes, layers: list[LayerDir]) -> tuple[int, list[LayerDir]]:
        """A lookup found a directory: its id, counted, and the layers that are of no use (any more).

        Those of a known directory are replaced only if it is elsewhere by now: what is open stays open.
        """
        above = self.known_directory(parent)
        if above.children is None:
            above.children = {}
        id = above.children.get(name)
        if id is not None:
            node = self.known_directory(id)
            node.lookups += 1
            if len(layers) == len(node.layers) and all(map(LayerDir.same_place, node.layers, layers)):
                return id, layers
            layers, node.layers = node.layers, layers
            node.ino, node.names = 0, None
            return id, layers
        id = next(self._ids)
        node = LiveDirectory(parent, name, layers)
        node.lookups = 1
        self[id] = node
        above.children[name] = id
        above.kept += 1
        return id, []

    def count(self, id: int) -> None:
        """One more lookup of a known node."""
        self[id].lookups += 1

    def forget(self, id: int, count: int) -> list[tuple[int, LiveFile | LiveDirectory]]:
        """Take lookups back. Returns the nodes that were given up by it, the directories above included."""
        self[id].lookups -= count
        gone: list[tuple[int, LiveFile | LiveDirectory]] = []
        unsure = [id]
        while unsure:
            id = unsure.pop()
            if id == ROOT or id not in self:
                continue
            node = self[id]
            if node.lookups > 0 or (isinstance(node, LiveDirectory) and node.kept):
                continue
            del self[id]
            gone.append((id, node))
            if isinstance(node, LiveFile):
                del self._by_identity[node.identity]
                for parent, _ in node.names():
                    unsure.append(self._release(parent))
            else:
                children = self.known_directory(node.parent).children
                assert children is not None
                del children[node.name]
                unsure.append(self._release(node.parent))
        return gone

    def lose_name(self, id: int, parent: int, name: bytes) -> None:
        """A file is no longer found under one of its other names."""
        node = self._file(id)
        if node.others and node.others.pop((parent, name), None) is not None:
            self._release(parent)

    def _file(self, id: int) -> LiveFile:
        node = self[id]
        assert isinstance(node, LiveFile)
        return node

    def known_directory(self, id: int) -> LiveDirectory:
        """A node that is known to be a directory."""
        node = self[id]
        assert isinstance(node, LiveDirectory)
        return node

    def _release(self, parent: int) -> int:
        self.known_directory(parent).kept -= 1
        return parent
