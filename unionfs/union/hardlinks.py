"""Files that have several names in the tree: which of them the upper has once the file was promoted.

By one name a promoted file is in the upper, and the record in origins/ makes all other names show it
(`unionfs.upper.links`). But others read the upper as well: engines that make a layer of it, backups, the kernel's
overlayfs. What they find must be what the mount shows, so before a file changes, all names of it that the tree knows
get into the upper. The kernel does not say by which name a file is written; that one is among them in any case: an
image knows all names, and live directories those that were looked up.
"""

from __future__ import annotations

import errno
import os

from unionfs.nodes import Node
from unionfs.union.core import error
from unionfs.union.promote import Promotion


class HardLinks(Promotion):
    """Promotion of a file with the names that its change shows by."""

    def changing(self, id: int, keep: int | None = None) -> Node:
        """The node in the upper, by all its names, before its content or attributes change; `keep` as in `promote`."""
        node = self.promote(id, keep)
        if node.left > 0:
            self._take_over(node)
        return node

    def _take_over(self, node: Node) -> None:
        names = self.tree.names(node.row) if node.row else []
        if len(names) == node.asked:  # nothing new since the last change
            return
        for parent, name in names:
            if self.shows(parent, name) and self._leads_to(parent, name, node):
                self.materialise(parent, name, node.id)
        node.asked = len(names)

    def _leads_to(self, parent: int, name: bytes, node: Node) -> bool:
        """Whether a name that live directories knew is still one of this file."""
        if self.tree.stable:
            return True
        row = self.tree.lookup(parent, name)
        same = bool(row) and self.tree_ino(row) == node.ino
        self.uncount(row, None)
        return same

    def materialise(self, parent: int, name: bytes, id: int) -> Node:
        """The promoted node with this very name in the upper, which a hard-linked file may not have yet.

        EXDEV where the upper has no hard links: then mv(1) makes a file of its own for that name.
        """
        node = self.promote(id, at=(parent, name))
        directory = self.promote_directory(parent)
        if self.names(directory).get(name) is None:
            if not self.upper.able.links:
                raise error(errno.EXDEV, name)
            assert self.links is not None
            path, follow = self.upper.path(node)
            with (
                self.links.take_over(node, node.links(self.upper.stat(node).st_nlink)),
                self.upper.keeping_times(directory),
            ):
                os.link(path, name, dst_dir_fd=self.upper.directory(directory), follow_symlinks=follow)
            directory.set(name, node.id, in_tree=True)
            node.add_name(directory, name)
        return node
