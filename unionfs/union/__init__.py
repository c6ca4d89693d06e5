"""The union: one upper over one tree, every operation by node id. It decides what is visible.

A file per family: `reading`, `writing`, `namespace`, `rename`, `xattrs`; all on `promote` (copy-up) and `core`
(which node a name means). One thread owns all of it.
"""

from __future__ import annotations

from unionfs.tree import ROOT
from unionfs.union.promote import Busy, Job
from unionfs.union.rename import Renaming
from unionfs.union.writing import Later, SetAttr, Writing
from unionfs.union.xattrs import Xattrs

__all__ = ["Busy", "Job", "Later", "SetAttr", "Union"]


class Union(Writing, Renaming, Xattrs):
    """A union of one tree and at most one upper; without an upper every change raises EROFS."""

    def close(self) -> None:
        """Release what both sides hold open."""
        if self.upper_or_none is not None:
            for node in self.nodes.values():
                if (node.fd >= 0 or node.hidden) and node.id != ROOT:  # most are removed, and still in use
                    self.upper_or_none.release(node)
            self.upper_or_none.close()
        self.tree.close()
