"""One layer as a changeset, and its application to what the layers below made.

OCI image-spec, layer.md. Whiteouts and opaque marks act on the layers below alone, wherever in the layer they
stand, so a layer is collected whole before it is applied: first its marks are carried out on the lower tree,
then what remains of that is merged with the layer's own. Nothing here recurses; paths may be of any depth.
"""

from __future__ import annotations

from typing import NamedTuple

from unionfs.image.errors import LayerError, show
from unionfs.image.inodes import Inodes
from unionfs.image.layer import LayerReader, Member
from unionfs.whiteout import OPAQUE_NAME as OPAQUE
from unionfs.whiteout import PREFIX as WHITEOUT

AUFS = b".wh..wh."  # names that AUFS keeps for itself; other than the opaque mark they say nothing in a layer

Path = list[bytes]

_UNUSUAL = (b"", b".", b"..")


class Link(NamedTuple):
    """A hard link whose target the layer had not shown when the link came."""

    directory: int
    name: bytes
    inode: int  # reserved for it
    member: bytes  # the link's name in the archive, for messages
    target: bytes


class Changeset:
    """What one layer says, collected from its members in their order."""

    def __init__(self, inodes: Inodes, reader: LayerReader, layer: int) -> None:
        self._inodes = inodes
        self._reader = reader
        self._layer = layer
        self._children = inodes.children
        self.root = inodes.add_directory()
        self._implied = {self.root}  # directories that no member described so far
        self._whiteouts: list[Path] = []
        self._opaque: list[Path] = []
        self._links: list[Link] = []
        self._reserved: set[int] = set()
        self._parent: tuple[bytes, int] | None = None
        """Directory of the last member, which most share with the next; None once it may be another."""

    def add(self, member: Member) -> None:
        """Take one member; a later one of the same name replaces it (a directory keeps its content)."""
        head, _, name = member.name.rpartition(b"/")
        if name in _UNUSUAL or b".wh." in member.name or member.name.startswith(b"/"):
            path = self._components(member.name)
            if not path:
                self._describe_root(member)
                return
            if any(part.startswith(WHITEOUT) for part in path):
                self._mark(member, path)
                return
            name = path.pop()
            directory = self._directory(path)
        else:
            if len(name) > 255:
                raise self._too_long(member.name)
            if self._parent is None or self._parent[0] != head:
                self._parent = head, self._directory(self._components(head, member.name))
            directory = self._parent[1]
        self._put(directory, name, member)

    def apply(self, lower: int) -> int:
        """Merge onto the tree `lower`, which is used up, and return the root of the result."""
        for path in self._whiteouts:
            directory = self._find(lower, path[:-1])
            self._children.get(directory, {}).pop(path[-1], None)
        for path in self._opaque:
            self._children.get(self._find(lower, path), {}).clear()
        self._resolve_links(lower)
        children = self._children
        todo = [(lower, self.root)]
        while todo:
            below, above = todo.pop()
            if above in self._implied:
                self._inodes.describe(above, below)
            names = children.pop(below)
            for name, inode in children[above].items():
                hidden = names.get(name, 0)
                if inode in children and hidden in children:
                    todo.append((hidden, inode))
                names[name] = inode
            children[above] = names
        return self.root

    def _put(self, directory: int, name: bytes, member: Member) -> None:
        names = self._children[directory]
        old = names.get(name, 0)
        if not member.mode:
            names[name] = self._link(directory, name, member)
        else:
            inode = self._inodes.add(member, self._layer)
            if old in self._children and inode in self._children:
                # Both keep the content: links that wait for their target know the old one.
                self._children[inode] = self._children[old]
            names[name] = inode
        if old in self._children:
            self._parent = None  # it may have been the one replaced, or below it

    def _link(self, directory: int, name: bytes, member: Member) -> int:
        path = self._components(member.link.lstrip(b"/"), member.name)
        inode = self._find(self.root, path)
        if inode in self._children:
            raise self._reader.error(member.name, f"hard link to the directory {show(member.link)}")
        if not inode or inode in self._reserved:
            inode = inode or self._inodes.reserve()
            self._reserved.add(inode)
            self._links.append(Link(directory, name, inode, member.name, member.link))
        return inode

    def _resolve_links(self, lower: int) -> None:
        """Find the targets of pending links: below first, since there they were when the link was made."""
        target_of: dict[int, int] = {}
        for link in self._links:
            if link.inode not in target_of:
                path = self._components(link.target.lstrip(b"/"), link.member)
                target_of[link.inode] = self._find(lower, path) or self._find(self.root, path)
        for link in self._links:
            seen: set[int] = set()
            inode = link.inode
            while inode in self._reserved and inode not in seen:
                seen.add(inode)
                inode = target_of[inode]
            target_of.update(dict.fromkeys(seen, inode))
            if not inode or inode in self._reserved:
                raise self._reader.error(link.member, f"hard link to nothing: {show(link.target)}")
            if inode in self._children:
                raise self._reader.error(link.member, f"hard link to the directory {show(link.target)}")
            names = self._children.get(link.directory, {})
            if names.get(link.name) == link.inode:
                names[link.name] = inode

    def _describe_root(self, member: Member) -> None:
        inode = self._inodes.add(member, self._layer) if member.mode else 0
        if inode not in self._children:
            raise self._reader.error(member.name, "the root of the image must be a directory")
        self._inodes.describe(self.root, inode)
        del self._children[inode]
        self._implied.discard(self.root)

    def _mark(self, member: Member, path: Path) -> None:
        if any(part.startswith(AUFS) and part != OPAQUE for part in path):
            return
        name = path.pop()
        if any(part.startswith(WHITEOUT) for part in path):
            raise self._reader.error(member.name, "a member below a whiteout")
        hidden = name[len(WHITEOUT) :]
        if name == OPAQUE:
            self._opaque.append(path)
        elif hidden in (b"", b".", b".."):
            raise self._reader.error(member.name, "a whiteout of no name")
        else:
            self._whiteouts.append([*path, hidden])

    def _directory(self, path: Path) -> int:
        """The layer's directory at `path`, implied where no member made it.

        What stands in the way and is no directory gives way, symbolic links too: they are never followed.
        """
        at = self.root
        for name in path:
            names = self._children[at]
            at = names.get(name, 0)
            if at not in self._children:
                at = names[name] = self._inodes.add_directory()
                self._implied.add(at)
        return at

    def _find(self, root: int, path: Path) -> int:
        """The inode at `path` below `root`, or 0."""
        at = root
        for name in path:
            at = self._children.get(at, {}).get(name, 0)
        return at

    def _components(self, path: bytes, member: bytes | None = None) -> Path:
        name = path if member is None else member
        if path.startswith(b"/") and path.strip(b"/"):
            raise self._reader.error(name, "an absolute name")
        parts = [part for part in path.split(b"/") if part and part != b"."]
        for part in parts:
            if part == b"..":
                raise self._reader.error(name, '".." in a name')
            if len(part) > 255:
                raise self._too_long(name)
        return parts

    def _too_long(self, name: bytes) -> LayerError:
        return self._reader.error(name, "a component of more than 255 bytes")
