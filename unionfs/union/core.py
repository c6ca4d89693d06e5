"""What all operations of the union share: finding a node, its attributes, and what the upper has of it.

The one resolver of "which node does this name of this directory mean?" is `Core.child`; looking up, listing
and every change of the namespace ask it.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from unionfs import acl, override, ownership, upper, whiteout
from unionfs.features import USUAL, Features
from unionfs.fuse import wire
from unionfs.nodes import UNRESOLVED, WHITEOUT, Directory, Node
from unionfs.tree import ROOT, Tree
from unionfs.union.remedies import Remedies
from unionfs.upper import Upper
from unionfs.upper.links import Links

if TYPE_CHECKING:
    from unionfs.union.promote import Job

_T = TypeVar("_T")

NAME_MAX = 255

_NO_LINKS = struct.pack("<I", 0)
_NLINK_OFFSET = 64  # of nlink in struct fuse_attr


def error(code: int, name: bytes | None = None) -> OSError:
    """An OSError of the subclass that the errno has."""
    return OSError(code, os.strerror(code), name)


def check_new_name(name: bytes) -> None:
    """Refuse a name that cannot be made: one that is too long on disk (ENAMETOOLONG)."""
    if len(name) > NAME_MAX:
        raise error(errno.ENAMETOOLONG, name)


class Core(Remedies):
    """The state of a union of one tree and at most one upper."""

    def __init__(
        self, tree: Tree, upper: Upper | None, owners: ownership.Ownership, features: Features = USUAL
    ) -> None:
        self.tree = tree
        self.features = features
        self.upper_or_none = upper
        self.owners = owners
        self.valid = wire.Validity(tree.timeout, tree.rows, tree.generation)
        self.negative = self.valid.entry(0, bytes(wire.ATTR.size))
        """LOOKUP's answer for a name that is not there: the kernel remembers that, too."""
        self.nodes: dict[int, Node] = {}
        self.unready: set[int] = set()  # directories of the tree whose ready-made listing is out of date
        self.by_inode: dict[int, Node] = {}  # upper files with several names, by the host's inode number
        self.linked: dict[int, Node] = {}  # nodes that have a record in origins/, by st_ino
        self.links: Links | None = None
        self.spread = False  # whether a file with other names in the tree was promoted
        self.durable = upper is not None and upper.durable
        """Whether anything can be brought to a disk: else fsync(2) and its like have nothing to do."""
        self.ownable: dict[tuple[int, int], bool] = {}  # (uid, gid): whether the upper's files can be given to it
        self.jobs: dict[int, Job] = {}  # promotions that a worker is copying for
        self.outdate: Callable[[int], object] = id
        """Set by the front end: lets the kernel ask for a node's attributes anew where no reply tells them."""
        if upper is not None:
            self._adopt(upper)

    def _adopt(self, upper: Upper) -> None:
        root = Directory(ROOT, self.tree_ino(ROOT), None, ROOT)
        upper.adopt_root(root)
        root.override = upper.override_of(root)
        if whiteout.is_opaque(upper.root):
            root.lower_dir = 0
        self.note_directory(root, os.fstat(upper.root))
        self.nodes[ROOT] = root
        self.links = Links(upper)
        if self.tree.stable:
            for ino in self.links.inos():
                self.unready.update(parent for parent, _ in self.tree.names(ino))

    @property
    def upper(self) -> Upper:
        """The writable side; EROFS where there is none."""
        if self.upper_or_none is None:
            raise error(errno.EROFS)
        return self.upper_or_none

    def tree_ino(self, node: int) -> int:
        """st_ino of a node of the tree."""
        return int.from_bytes(self.tree.attr(node)[:8], "little")

    # Which node is meant.

    def child(self, parent: int, name: bytes) -> tuple[int, Node | None]:
        """The node id that a name means and what is known of it beyond the tree; (0, None) for no such name.

        Where the tree is not stable and no node is returned, this counted as a lookup of the tree's node.
        """
        if len(name) > NAME_MAX:
            raise error(errno.ENAMETOOLONG, name)
        directory = self.nodes.get(parent)
        if directory is None:
            return self._tree_child(parent, name)
        if not isinstance(directory, Directory):
            if directory.lower:  # A removed directory of the tree: nothing is in it.
                return 0, None
            raise error(errno.ENOTDIR, name)
        known = self.names(directory).get(name)
        if known is None:
            return self._tree_child(directory.lower_dir, name) if directory.lower_dir else (0, None)
        if known == WHITEOUT:
            return 0, None
        node = self._resolve(directory, name) if known == UNRESOLVED else self.nodes[known]
        return node.id, node

    def _tree_child(self, parent: int, name: bytes) -> tuple[int, Node | None]:
        row = self.tree.lookup(parent, name)
        if not row:
            return 0, None
        node = self.nodes.get(row)
        if node is None and self.links:
            ino = self.tree_ino(row)
            if ino in self.links:
                node = self._linked_node(ino, row)
        if node is not None and not self.tree.stable:
            self.tree.forget(row, 1)
        return (row, None) if node is None else (node.id, node)

    def _linked_node(self, ino: int, row: int) -> Node:
        """The promoted file that stands for a hard-linked file of the tree, found by one of its other names."""
        node = self.linked.get(ino)
        if node is None:
            assert self.links is not None
            node = self._new_file(row if self.tree.stable else self.tree.new_id(), ino, None)
            self.upper.hold(node, self.links.open(ino))
            node.override = self.upper.override_of(node)
            node.left = self.links.left(ino)
            self.linked[ino] = node
            self.note_inode(node, self.upper.stat(node).st_ino)
        if not node.row:
            node.row = row
            self.tree.remember(row)  # and so the names that lead to it
        return node

    def known_child(self, parent: int, name: bytes) -> tuple[int, Node | None]:
        """`child` without counting and with ENOENT: for the calls that change or remove a name."""
        id, node = self.child(parent, name)
        if not id:
            raise error(errno.ENOENT, name)
        self.uncount(id, node)
        return id, node

    def uncount(self, id: int, node: Node | None) -> None:
        """Take back the lookup that `child` may have counted; the kernel has others of a node it names."""
        if node is None and id and not self.tree.stable:
            self.tree.forget(id, 1)

    def names(self, directory: Directory) -> dict[bytes, int]:
        """What the upper has in a directory, read when first asked for."""
        if directory.names is None:
            listing = whiteout.scan(self.upper.directory(directory), quiet=True)  # looking up is no reading
            directory.names = {}
            if listing.opaque:
                directory.lower_dir = 0
            for name in listing.names:
                directory.set(name, UNRESOLVED, self.in_tree(directory, name))
            for name in listing.whiteouts - listing.names.keys():
                directory.set(name, WHITEOUT, self.in_tree(directory, name))
        return directory.names

    def in_tree(self, directory: Directory, name: bytes) -> bool:
        """Whether the tree would show something under a name if the upper did not say otherwise."""
        return bool(directory.lower_dir) and self.tree.contains(directory.lower_dir, name)

    def recheck(self, directory: Directory, name: bytes) -> None:
        """Before a name of the upper goes: a tree that may change could have gained it since it was made."""
        if self.valid.finite and directory.is_extra(name) and self.in_tree(directory, name):
            directory.no_extra(name)

    # Nodes for what is in the upper already.

    def _resolve(self, directory: Directory, name: bytes) -> Node:
        place = self.upper.directory(directory)
        status = os.stat(name, dir_fd=place, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            node: Node = self._resolve_directory(directory, name, status)
        else:
            node = self._resolve_file(directory, name, status)
        self.names(directory)[name] = node.id
        return node

    def _resolve_directory(self, directory: Directory, name: bytes, status: os.stat_result) -> Directory:
        place = self.upper.directory(directory)
        own = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)
        try:
            marks = whiteout.marks(own)
        finally:
            os.close(own)
        row = 0
        # A mark beside a redirect belongs to a rename that was not finished: see `Renaming._rename`.
        if not marks.opaque and (marks.redirect is not None or not whiteout.is_marked(place, name)):
            row = self._merged_with(directory, name, marks.redirect)
        id = row or self.tree.new_id()
        ino = self.tree_ino(row) if row else self.tree.foreign_ino(self.upper.device, status.st_ino)
        node = Directory(id, ino, (directory, name), row)
        node.override = self.upper.override_in(self.upper.directory(directory), name, status)
        self.note_directory(node, status)
        self.nodes[id] = node
        return node

    def _merged_with(self, directory: Directory, name: bytes, redirect: bytes | None) -> int:
        """The directory of the tree below one of the upper, counted; 0 for none."""
        if redirect is None:
            row = self.tree.lookup(directory.lower_dir, name) if directory.lower_dir else 0
        else:
            row = self._follow(directory, redirect)
        if not row:
            return 0
        if row in self.nodes or not stat.S_ISDIR(wire.Attr.unpack(self.tree.attr(row)).mode):
            self.tree.forget(row, 1)
            return 0
        return row

    def _follow(self, directory: Directory, redirect: bytes) -> int:
        """Where a redirect leads in the tree: absolute from its root, or a sibling of the directory."""
        row, parts = ROOT, redirect.split(b"/")[1:]
        if not redirect.startswith(b"/"):
            row, parts = directory.lower_dir, [redirect]
        reached = 0
        for part in parts:
            row = self.tree.lookup(row, part) if row else 0
            if reached:
                self.tree.forget(reached, 1)
            reached = row
        return reached

    def _resolve_file(self, directory: Directory, name: bytes, status: os.stat_result) -> Node:
        recorded = 0
        if status.st_nlink > 1:
            known = self.by_inode.get(status.st_ino)
            if known is not None:
                known.add_name(directory, name)
                return known
            assert self.links is not None
            recorded = self.links.shown(status.st_ino)
        shown = recorded or self._origin(directory, name, status)
        usable = shown and self.tree.stable and shown not in self.nodes
        ino = shown or self.tree.foreign_ino(self.upper.device, status.st_ino)
        node = self._new_file(shown if usable else self.tree.new_id(), ino, (directory, name))
        node.override = self.upper.override_in(self.upper.directory(directory), name, status)
        if status.st_nlink > 1:
            self.note_inode(node, status.st_ino)
        if recorded:
            assert self.links is not None
            node.left = self.links.left(recorded)
            node.row = node.id if usable else 0
            self.linked[recorded] = node
        return node

    def _origin(self, directory: Directory, name: bytes, status: os.stat_result) -> int:
        if not stat.S_ISREG(status.st_mode):
            return 0
        path = whiteout.path(self.upper.directory(directory), name)
        try:
            mark = os.getxattr(path, upper.ORIGIN, follow_symlinks=False)
        except OSError as failure:
            if failure.errno == errno.ENODATA or failure.errno in upper.NO_XATTR:
                return 0
            raise
        number = int(mark) if mark.isdigit() and len(mark) <= 20 else 0
        if number <= ROOT or (self.tree.stable and not self.tree.owns(number)):  # a row is its own number
            return 0
        return number if number < 1 << 64 else 0

    def _new_file(self, id: int, ino: int, where: tuple[Directory, bytes] | None) -> Node:
        node = Node(id, ino, where)
        self.nodes[id] = node
        return node

    @staticmethod
    def note_directory(node: Directory, status: os.stat_result) -> None:
        """Remember which group new entries inherit, from the directory's own mode (inode_init_owner())."""
        _, gid, mode, _ = node.override or override.of(status)
        node.gid = gid if mode & stat.S_ISGID else -1

    # Attributes.

    def attr(self, id: int) -> bytes | memoryview:
        """``struct fuse_attr`` of any node as the mount shows it."""
        node = self.nodes.get(id)
        if node is None:
            return ownership.shown(self.tree.attr(id), self.owners)
        return self.node_attr(node)

    def node_attr(self, node: Node) -> bytes | memoryview:
        """The same of a node that the union knows."""
        if node.lower:
            attr = ownership.shown(self.tree.attr(node.id), self.owners)
            return bytes(attr[:_NLINK_OFFSET]) + _NO_LINKS + bytes(attr[_NLINK_OFFSET + 4 :])
        return self.pack(node, self.upper.stat(node))

    def pack(self, node: Node, status: os.stat_result) -> bytes:
        """A status from the upper in the form the kernel wants, with the node's own number and links."""
        nlink = node.links(status.st_nlink)
        if isinstance(node, Directory) and (node.lower_dir or not self.features.count_links):
            nlink = min(1, nlink)  # how many it has with what the tree has in it nobody knows; removed, it has none
        if node.left >= 0:
            nlink += node.left - 1
        uid, gid, mode, rdev = node.override or (status.st_uid, status.st_gid, status.st_mode, status.st_rdev)
        uid, gid = self.owners.show(uid, gid)
        atime, atimensec = divmod(status.st_atime_ns, 1_000_000_000)
        mtime, mtimensec = divmod(status.st_mtime_ns, 1_000_000_000)
        ctime, ctimensec = divmod(status.st_ctime_ns, 1_000_000_000)
        rdev = rdev and wire.encode_rdev(os.major(rdev), os.minor(rdev))
        return wire.ATTR.pack(
            node.ino, status.st_size, status.st_blocks, atime, mtime, ctime, atimensec, mtimensec, ctimensec,
            mode, nlink, uid, gid, rdev, status.st_blksize, 0,
        )  # fmt: skip

    def default_acl(self, directory: Directory) -> bytes:
        """What new entries of a directory get (acl(5)), b"" for none."""
        if directory.default_acl is None and self.upper.overrides:
            directory.default_acl = b""
        elif directory.default_acl is None:
            directory.default_acl = self.upper.get_mark(directory, acl.DEFAULT) or b""
        return directory.default_acl

    def masked(self, directory: Directory, mode: int, umask: int) -> int:
        """The mode for something new: a default ACL takes the umask's place."""
        return mode if not umask or self.default_acl(directory) else mode & ~umask

    # Dropping.

    def forget(self, id: int, count: int) -> None:
        """The kernel dropped `count` lookups of a node, and with them, as a rule, its inode.

        Rows of the tree and what was promoted from them keep their id for ever, so those are not counted;
        what they hold open for a file without names is given up, because nothing can lead to it any more.
        """
        node = self.nodes.get(id)
        if node is None:
            if not self.tree.stable:
                self.tree.forget(id, count)
            return
        node.lookups -= count
        if not self.tree.owns(id):
            if node.lookups <= 0:
                self._drop(node)
        elif node.lower:
            del self.nodes[id]
            self.tree.forget(id, 1)
        elif node.removed and node.left < 0 and id != ROOT:
            self.upper.release(node)

    def _drop(self, node: Node) -> None:
        if isinstance(node, Directory) and node.names and any(id > 0 for id in node.names.values()):
            return  # Nodes below still say where they are by this one.
        if node.left >= 0:
            return
        for directory, name in [*([node.where] if node.where else []), *node.others]:
            if directory.names is not None and directory.names.get(name) == node.id:
                directory.names[name] = UNRESOLVED
        self.forget_inode(node)
        self.upper.release(node)
        del self.nodes[node.id]

    def note_inode(self, node: Node, inode: int) -> None:
        """Other names of the same file of the upper shall lead to this node."""
        self.by_inode[inode] = node
        node.inode = inode

    def forget_inode(self, node: Node) -> None:
        """Take a node out of `by_inode`, if it is there."""
        if node.inode:
            del self.by_inode[node.inode]
            node.inode = 0
