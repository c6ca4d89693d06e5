"""One layer as a changeset: its members applied, one after the other, to the tree that the layers below made.

OCI image-spec, layer.md; where that is silent, what `umoci unpack` does (docs/index-format.md has the cases).
Every member finds its directory in the merged tree as it is at that moment, through symbolic links too, which
lead to places inside the image alone: nothing here touches the host. Whiteouts and opaque marks act on the
layers below only, so what this layer put in place is told from the rest (`_own`). Nothing here recurses; paths
may be of any depth.
"""

from __future__ import annotations

from unionfs.image.errors import show
from unionfs.image.inodes import Inodes
from unionfs.image.layer import LayerReader, Member
from unionfs.image.walk import Path, Walk, WalkError, split
from unionfs.whiteout import OPAQUE_NAME as OPAQUE
from unionfs.whiteout import PREFIX as WHITEOUT
from unionfs.whiteout import shown

AUFS = b".wh..wh."  # names that AUFS keeps for itself; other than the opaque mark they say nothing in a layer

_UNUSUAL = (b"", b".", b"..")


class Changeset:
    """Applies one layer to the tree `root`, in place. After an error the tree is of no use."""

    def __init__(self, inodes: Inodes, reader: LayerReader, layer: int, root: int) -> None:
        self._inodes = inodes
        self._reader = reader
        self._layer = layer
        self._root = root
        self._children = inodes.children
        self._first = len(inodes.data)
        """Inodes from here on are this layer's; directories among them hold nothing of the layers below."""
        self._touched = {root}  # directories in which, or below which, this layer put something
        self._linked: set[tuple[int, bytes]] = set()  # names given by hard link members: the inode may be a lower one
        self._cleared: set[int] = set()  # directories of the layers below that hold only what is this layer's
        self._parent: tuple[bytes, int] | None = None
        """Directory of the last member, which most share with the next; None once it may be another."""

    def add(self, member: Member) -> None:
        """Apply one member; a later one of the same name replaces it (a directory keeps its content)."""
        try:
            self._add(member)
        except WalkError as error:
            raise self._reader.error(member.name, str(error)) from None

    def _add(self, member: Member) -> None:
        head, _, name = member.name.rpartition(b"/")
        if name in _UNUSUAL or b".wh." in member.name:
            path = _components(member.name)
            if not path:
                self._describe_root(member)
            elif any(part.startswith(WHITEOUT) for part in path):
                self._mark(path)
            else:
                *path, name = map(shown, path)
                self._put(self._directory(path), name, member)
            return
        if self._parent is None or self._parent[0] != head:
            self._parent = head, self._directory(_components(head))
        self._put(self._parent[1], name, member)

    def _put(self, directory: int, name: bytes, member: Member) -> None:
        if len(name) > 255:
            raise WalkError("a component of more than 255 bytes")
        names, children, targets = self._children[directory], self._children, self._inodes.targets
        old = names.get(name, 0)
        if member.mode:
            inode = self._inodes.add(member, self._layer)
            if old in children and inode in children:
                self._describe(old, inode)
                return
        else:
            inode = self._target(member, old)
            if not inode:
                return
            self._linked.add((directory, name))
        names[name] = inode
        if old in children or old in targets or inode in targets:
            self._parent = None  # the way to it may have led through here

    def _target(self, member: Member, old: int) -> int:
        """The inode that a hard link member names. Its own last component is not followed (linkat(2)).

        `old` is what has the member's name: a link with itself changes nothing, whatever that is, and makes nothing
        where nothing is: 0.
        """
        path = _components(member.link)
        if not old and path == _components(member.name):
            return 0
        path = list(map(shown, path))
        inode = self._root
        if path:
            name = path.pop()
            inode = self._children.get(self._walk(path).inode, {}).get(name, 0)
        if not inode:
            raise WalkError(f"hard link to nothing: {show(member.link)}")
        if inode in self._children and inode != old:
            raise WalkError(f"hard link to the directory {show(member.link)}")
        return inode

    def _describe_root(self, member: Member) -> None:
        inode = self._inodes.add(member, self._layer) if member.mode else 0
        if inode not in self._children:
            raise WalkError("the root of the image must be a directory")
        self._describe(self._root, inode)

    def _describe(self, directory: int, inode: int) -> None:
        """Give a directory that is there the attributes of a new one, which is not needed any more."""
        self._inodes.describe(directory, inode)
        del self._children[inode]
        self._touched.add(directory)

    def _mark(self, path: Path) -> None:
        """A whiteout or an opaque mark. Where its directory is not there, it hides nothing and makes nothing."""
        if any(part.startswith(AUFS) and part != OPAQUE for part in path):
            return
        mark = path.pop()
        if any(part.startswith(WHITEOUT) for part in path):
            raise WalkError("a member below a whiteout")
        name = shown(mark[len(WHITEOUT) :])
        if name in _UNUSUAL:
            raise WalkError("a whiteout of no name")
        directory = self._walk(list(map(shown, path))).inode
        self._parent = None
        if mark == OPAQUE:
            self._clear(directory)
            return
        names = self._children.get(directory, {})
        inode = names.get(name, 0)
        if self._own(directory, name, inode):
            self._clear(inode)
        elif inode:
            del names[name]

    def _own(self, directory: int, name: bytes, inode: int) -> bool:
        """Whether this layer has this name: made it, described it, or put something below it."""
        return inode >= self._first or inode in self._touched or (directory, name) in self._linked

    def _clear(self, inode: int) -> None:
        """Remove from a directory, at any depth, what is not this layer's."""
        todo = [inode]
        while todo:
            directory = todo.pop()
            if directory >= self._first or directory in self._cleared or directory not in self._children:
                continue
            self._cleared.add(directory)
            names = self._children[directory]
            self._children[directory] = {
                name: inode for name, inode in names.items() if self._own(directory, name, inode)
            }
            todo += self._children[directory].values()

    def _directory(self, path: Path) -> int:
        """The directory at `path`. What is missing of it is made, and takes the place of what is no directory."""
        try:
            walk = self._walk(path)
            whole = walk.inode in self._children
        except WalkError:
            whole = False
        if not whole:
            walk = self._cleared_way(path)
        for depth, inode in enumerate(walk.inodes):
            if inode not in self._children:
                made = walk.inodes[depth] = self._inodes.add_directory()
                self._children[walk.inodes[depth - 1]][walk.names[depth]] = made
        self._touched.update(walk.inodes)
        return walk.inode

    def _cleared_way(self, path: Path) -> Walk:
        """The way along `path`, on which a symbolic link of a lower layer that leads to no directory becomes one.

        Engines that keep a directory for each layer, as podman does, put one in its place. A link of this layer is
        followed, and what it names is made (umoci).
        """
        walk = self._walk([])
        for name in path:
            directory = walk.inode
            inode = self._children.get(directory, {}).get(name, 0)
            if inode in self._inodes.targets and not self._own(directory, name, inode):
                try:
                    leads = walk.copy().follow([name]).inode in self._children
                except WalkError:
                    leads = False
                if not leads:
                    self._children[directory][name] = self._inodes.add_directory()
            walk.follow([name])
        return walk

    def _walk(self, path: Path) -> Walk:
        return Walk(self._inodes, self._root, path)


def _components(path: bytes) -> Path:
    """The parts of a member's or a hard link target's name, cleaned below the root without a look at the tree.

    As filepath.Clean of Go: ``a/../b`` is ``b`` whatever ``a`` is, ``/b`` and ``../b`` are ``b``, too.
    """
    parts: Path = []
    for part in split(path):
        if part != b"..":
            parts.append(part)
        elif parts:
            parts.pop()
    if any(len(part) > 255 for part in parts):
        raise WalkError("a component of more than 255 bytes")
    return parts
