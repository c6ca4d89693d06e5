"""What each layer does to an image: how many names it adds, changes and hides, and the bytes that layers above hide.

For people who look at an image; mounting needs none of it. It merges the layers as the compiler does (`Changeset`) and
compares the tree after each with the tree before, so it costs the number of names times the number of layers.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from unionfs.fuse import wire
from unionfs.image.changeset import Changeset
from unionfs.image.format import ATTR_SIZE
from unionfs.image.inodes import Inodes
from unionfs.image.layer import LayerReader


class LayerFacts(NamedTuple):
    """One layer, its names counted. `bytes` are those of its files; `hidden_bytes` of them no longer show."""

    added: int
    changed: int
    hidden: int
    bytes: int
    hidden_bytes: int


class Stack:
    """Layers merged, the lowest first. Raises LayerError and OSError as compiling does."""

    def __init__(self, layers: Sequence[str]) -> None:
        self._inodes = Inodes()
        self._root = self._inodes.add_directory()
        self._described: dict[int, int] = {}  # directory to the layer that described it last
        self._names: dict[bytes, int] = {b"/": self._root}
        counts = [self._apply(number, layer) for number, layer in enumerate(layers)]
        self.layers = [self._facts(number, count) for number, count in enumerate(counts)]
        """The lowest first."""

    def layer_of(self, path: bytes) -> int | None:
        """The number of the layer that a name's inode or a directory's attributes come from; None: no such name."""
        inode = self._names.get(path)
        if inode is None:
            return None
        return self._described.get(inode, self._inodes.layers[inode])

    def _apply(self, number: int, layer: str) -> tuple[int, int, int]:
        """Merge one layer; how many names it added, changed and hid."""
        before, was = self._names, self._directories()
        fd = os.open(layer, os.O_RDONLY | os.O_CLOEXEC)
        try:
            reader = LayerReader(fd, layer)
            changeset = Changeset(self._inodes, reader, number, self._root)
            for member in reader:
                changeset.add(member)
        finally:
            os.close(fd)
        self._names = dict(self._walk())
        described = {inode for inode, attrs in self._directories().items() if was.get(inode, attrs) != attrs}
        self._described.update(dict.fromkeys(described, number))
        added = sum(path not in before for path in self._names)
        changed = sum(before.get(path, inode) != inode or inode in described for path, inode in self._names.items())
        return added, changed, sum(path not in self._names for path in before)

    def _walk(self) -> Iterator[tuple[bytes, int]]:
        yield b"/", self._root
        todo = [(b"", self._root)]
        while todo:
            path, directory = todo.pop()
            for name, inode in self._inodes.children[directory].items():
                below = path + b"/" + name
                yield below, inode
                if inode in self._inodes.children:
                    todo.append((below, inode))

    def _directories(self) -> dict[int, bytes]:
        """The attributes of all directories."""
        attrs = self._inodes.attrs
        return {inode: bytes(attrs[inode * ATTR_SIZE : (inode + 1) * ATTR_SIZE]) for inode in self._inodes.children}

    def _facts(self, number: int, counts: tuple[int, int, int]) -> LayerFacts:
        shown = set(self._names.values())
        total = hidden = 0
        attrs = memoryview(self._inodes.attrs)
        for inode, layer in enumerate(self._inodes.layers):
            attr = wire.Attr.unpack(attrs, inode * ATTR_SIZE)
            if inode and layer == number and stat.S_ISREG(attr.mode):
                total += attr.size
                hidden += 0 if inode in shown else attr.size
        return LayerFacts(*counts, total, hidden)
