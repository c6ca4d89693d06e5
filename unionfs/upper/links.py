"""Files of the tree that an xattr in the upper cannot stand for: those with several names, and symlinks.

A promoted file is normally recognised by its origin mark (`upper.ORIGIN`). Two kinds need more:

- a file of the tree with several hard links: a name that was never touched still leads to the tree, and has to
  find the promoted file;
- symbolic links, fifos and devices, which may have no user xattrs (xattr(7)).

For them the work directory's `origins/` has a further hard link to the promoted file. Its name is
``<st_ino>.<left>``: the number that the mount shows, and how many names of the tree still lead to the tree's
file. So ``st_nlink`` as shown is the upper's, less this link, plus `left`. The kernel's overlayfs has its
index directory and ``overlay.nlink`` for the same (Documentation/filesystems/overlayfs.rst, "Index").

A name of the tree is taken over by giving the file that name in the upper, which cannot be one step with changing
`left`. While that is under way the record is called ``<st_ino>.<left>.<nlink>``, with the count of the upper before
(0 where the record is new): after a crash a higher one says that the name was given.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from unionfs.nodes import Node
from unionfs.tidying import tidying
from unionfs.upper import Upper


class Links:
    """The records in `origins/`, read once when mounting."""

    def __init__(self, upper: Upper) -> None:
        self._upper = upper
        self._left: dict[int, int] = {}  # st_ino as shown -> names left
        self._shown: dict[int, int] = {}  # st_ino on the upper's file system -> st_ino as shown
        self._unsettled: dict[int, bytes] = {}  # st_ino as shown -> name of the record, where it is a pending one
        for name in os.listdir(upper.origins):
            self._read(os.fsencode(name))

    def _read(self, name: bytes) -> None:
        origins = self._upper.origins
        ino, left, *before = map(int, name.split(b"."))
        status = os.stat(name, dir_fd=origins, follow_symlinks=False)
        if before:
            left -= status.st_nlink > max(1, before[0])
        # Its promotion was not finished, or its last name went: no name leads to it.
        if status.st_nlink == 1 and (before == [0] or not left):
            os.unlink(name, dir_fd=origins)
            return
        if before:
            os.rename(name, _name(ino, left), src_dir_fd=origins, dst_dir_fd=origins)
        self._left[ino] = left
        self._shown[status.st_ino] = ino

    def __contains__(self, ino: int) -> bool:
        """Whether a file of the tree, by the number it shows, is promoted and recorded."""
        return ino in self._left

    def __len__(self) -> int:
        """How many there are; without any, lookups need not ask."""
        return len(self._left)

    def inos(self) -> list[int]:
        """The numbers, as shown, of all recorded files."""
        return list(self._left)

    def shown(self, inode: int) -> int:
        """The number that the mount shows for an inode of the upper, or 0."""
        return self._shown.get(inode, 0)

    def left(self, ino: int) -> int:
        """How many names of the tree still lead to the tree's file."""
        return self._left[ino]

    @contextmanager
    def record(self, temporary: bytes, ino: int, links: int) -> Iterator[None]:
        """Record a promoted file of so many links that still lies in the work directory; it gets its place inside."""
        upper = self._upper
        pending = _name(ino, links, 0)
        self._begin(temporary, pending)
        try:
            inode = os.stat(temporary, dir_fd=upper.work, follow_symlinks=False).st_ino
            yield
        except BaseException:
            with tidying("removing a record of hard links"):
                os.unlink(pending, dir_fd=upper.origins)
            raise
        self._taken_over(ino, links - 1, pending)
        self._shown[inode] = ino

    def _begin(self, temporary: bytes, pending: bytes) -> None:
        work, origins = self._upper.work, self._upper.origins
        try:
            os.link(temporary, pending, src_dir_fd=work, dst_dir_fd=origins, follow_symlinks=False)
        except FileExistsError:  # from a promotion that failed and could not remove it
            os.unlink(pending, dir_fd=origins)
            os.link(temporary, pending, src_dir_fd=work, dst_dir_fd=origins, follow_symlinks=False)

    @contextmanager
    def take_over(self, node: Node, nlink: int) -> Iterator[None]:
        """One more name of the tree is given to a file of the upper, inside; `nlink` is the upper's count before."""
        left = self._left[node.ino]
        pending = _name(node.ino, left, nlink)
        self._rename(self._record(node.ino), pending)
        try:
            yield
        except BaseException:
            self._taken_over(node.ino, left, pending)
            raise
        self._taken_over(node.ino, left - 1, pending)
        node.left = left - 1

    def _taken_over(self, ino: int, left: int, pending: bytes) -> None:
        self._left[ino] = left
        self._unsettled[ino] = pending
        with tidying("settling a record of hard links"):
            self.settle(ino)

    def settle(self, ino: int) -> None:
        """Give a record its final name. One that is pending counts right until a name of its file goes."""
        pending = self._unsettled.get(ino)
        if pending is not None:
            self._rename(pending, _name(ino, self._left[ino]))
            del self._unsettled[ino]

    def _record(self, ino: int) -> bytes:
        return self._unsettled.get(ino) or _name(ino, self._left[ino])

    def _rename(self, old: bytes, new: bytes) -> None:
        origins = self._upper.origins
        os.rename(old, new, src_dir_fd=origins, dst_dir_fd=origins)

    def remove(self, node: Node) -> None:
        """The file has no name left, or its only name in the upper is one that an origin mark serves."""
        name = self._record(node.ino)
        inode = os.stat(name, dir_fd=self._upper.origins, follow_symlinks=False).st_ino
        with tidying("removing a record of hard links"):
            os.unlink(name, dir_fd=self._upper.origins)
        del self._left[node.ino], self._shown[inode]
        self._unsettled.pop(node.ino, None)
        node.left = -1

    def open(self, ino: int) -> int:
        """An O_PATH descriptor of a recorded file."""
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(self._record(ino), flags, dir_fd=self._upper.origins)


def _name(ino: int, left: int, before: int = -1) -> bytes:
    return b"%d.%d.%d" % (ino, left, before) if before >= 0 else b"%d.%d" % (ino, left)
