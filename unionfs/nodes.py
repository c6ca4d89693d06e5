"""What the union remembers of nodes that are not just a row of the tree: promoted, new and removed ones."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator
from typing import TYPE_CHECKING

from unionfs.arrivals import Arrivals

if TYPE_CHECKING:
    from unionfs.override import Override

WHITEOUT = 0
"""In `Directory.names`: the name is hidden, although the tree has it (or had, when the mark was made)."""

UNRESOLVED = -1
"""In `Directory.names`: the upper has something there that nobody asked for yet."""


class Node:
    """A node with something of its own in the upper, or a removed node of the tree.

    Exactly one of three holds: `where` says a name that leads to it in the upper; `fd` is a descriptor (O_PATH
    or for data) of a file that has no name any more, or `hidden` its name in the work directory; or `lower` is set,
    and the content is still the tree's.
    """

    __slots__ = (
        "asked", "bare", "fd", "hidden", "id", "ino", "inode", "last", "left", "lookups", "lower", "others", "override",
        "row", "where",
    )  # fmt: skip

    def __init__(self, id: int, ino: int, where: tuple[Directory, bytes] | None) -> None:
        self.id = id
        self.ino = ino  # st_ino as shown
        self.inode = 0  # st_ino on the host, where the union's `by_inode` has this node
        self.where = where
        self.others: dict[tuple[Directory, bytes], None] = {}  # further known names, as a set: there may be 65,000
        self.fd = -1
        self.last: os.stat_result | None = None  # what it was, where `fd` may not say so any more
        self.hidden: bytes | None = None  # a link for want of a descriptor, which no count of links is to show
        self.lookups = 0
        self.lower = False
        self.bare = False  # known to have no security.capability, which the kernel asks for all the time
        self.override: Override | None = None  # shown instead of what the inode of the upper says
        self.left = -1  # hard-linked files of the tree: names not taken over yet; -1: has no record in origins/
        self.row = 0  # the same: the tree's node, where it is known
        self.asked = 0  # the same: how many names of that were known when they were taken over last

    def links(self, nlink: int) -> int:
        """How many names a file of the upper has, by its st_nlink on the host."""
        return nlink if self.hidden is None else nlink - 1

    @property
    def removed(self) -> bool:
        """Whether no known name leads to it."""
        return self.where is None

    def add_name(self, directory: Directory, name: bytes) -> None:
        """Another name of the same file has become known."""
        if self.where is None:
            self.where = directory, name
        elif self.where != (directory, name):
            self.others[directory, name] = None

    def drop_name(self, directory: Directory, name: bytes) -> None:
        """A name is gone. Afterwards `where` is None if no other is known, though the disk may have more."""
        if self.where == (directory, name):
            self.where = self.others.popitem()[0] if self.others else None
        else:
            self.others.pop((directory, name), None)


class Directory(Node):
    """A directory of the upper, merged with a directory of the tree or not.

    `names` holds the upper's part only: name -> node id, UNRESOLVED or WHITEOUT. It is None until somebody
    looks. What is not in it is the tree's to answer, below `lower_dir` (0: nothing below shows).
    """

    __slots__ = ("_extra", "default_acl", "gid", "lower_dir", "names")

    def __init__(self, id: int, ino: int, where: tuple[Directory, bytes] | None, lower_dir: int) -> None:
        super().__init__(id, ino, where)
        self.lower_dir = lower_dir
        self.names: dict[bytes, int] | None = None
        self.default_acl: bytes | None = None  # system.posix_acl_default; b"" for none; None: nobody has looked
        self.gid = -1  # what new entries inherit where the directory is set-group-id, else -1
        self._extra = Arrivals()  # names that only the upper has

    def is_extra(self, name: bytes) -> bool:
        """Whether only the upper has the name, so that nothing shows when it is gone."""
        return name in self._extra

    def set(self, name: bytes, node: int, in_tree: bool) -> None:
        """The upper has (node id or UNRESOLVED) or hides (WHITEOUT) a name."""
        assert self.names is not None
        self.names[name] = node
        if not in_tree:
            self._extra.add(name)

    def compare(self, in_tree: Container[bytes]) -> None:
        """The tree has changed underneath: `in_tree` are the names that it shows in this directory now."""
        assert self.names is not None
        for name, node in self.names.items():
            if name in in_tree:
                self.no_extra(name)
            else:
                self.set(name, node, in_tree=False)

    def drop(self, name: bytes) -> None:
        """The upper has nothing of that name any more."""
        assert self.names is not None
        self.names.pop(name, None)
        if self._extra.discard(name):
            names = dict(self.names)
            self.names.clear()  # gives back the room that it once had
            self.names.update(names)

    def no_extra(self, name: bytes) -> None:
        """The name is gone, or the tree has it now, whose cookie then counts."""
        self._extra.discard(name)

    def extras(self, cookie: int) -> Iterator[tuple[bytes, int]]:
        """(name, cookie) of what only the upper has and is not hidden, after `cookie`; all of it for 0."""
        assert self.names is not None
        names = self.names
        return ((name, own) for name, own in self._extra.after(cookie) if names[name] != WHITEOUT)
