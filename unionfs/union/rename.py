"""rename(2) in all its forms. What moves is in the upper first; a directory takes its place in the tree along.

A directory that is merged with one of the tree gets a redirect, so its contents are found from its new name;
one that is not gets an opaque mark where the tree has something of the new name. Both marks mean nothing at the
old place, so they are set first, and the move itself is one renameat2(2).
"""

from __future__ import annotations

import errno
import os
import stat

from unionfs import syscalls, whiteout
from unionfs.fuse import wire
from unionfs.nodes import WHITEOUT, Directory, Node
from unionfs.tidying import tidying
from unionfs.tree import ROOT
from unionfs.union.core import check_new_name, error
from unionfs.union.namespace import Namespace, Vacancy
from unionfs.upper import NO_XATTR, REDIRECT, leaving

_KNOWN = {
    0,
    syscalls.RENAME_NOREPLACE,
    syscalls.RENAME_EXCHANGE,
    syscalls.RENAME_WHITEOUT,
    syscalls.RENAME_WHITEOUT | syscalls.RENAME_NOREPLACE,
}


class Renaming(Namespace):
    """rename(2)."""

    def rename(
        self, parent: int, name: bytes, newparent: int, newname: bytes, flags: int = 0, uid: int = 0, gid: int = 0
    ) -> None:
        """Move a name; flags as for renameat2(2). RENAME_WHITEOUT leaves a device 0:0 with the given owner."""
        if flags not in _KNOWN:
            raise error(errno.EINVAL)
        check_new_name(newname)
        id, _ = self.known_child(parent, name)
        target, target_node = self.child(newparent, newname)
        self.uncount(target, target_node)
        self._check_redirect(id)
        if flags == syscalls.RENAME_EXCHANGE:
            self._check_redirect(target)
            if not target:
                raise error(errno.ENOENT, newname)
            self._exchange((parent, name, id), (newparent, newname, target))
            return
        if target and flags & syscalls.RENAME_NOREPLACE:
            raise error(errno.EEXIST, newname)
        if target == id:
            return  # Two names of one file: nothing happens (rename(2)).
        self._check_replacing(id, target, newname)
        if flags & syscalls.RENAME_WHITEOUT:
            self._move_leaving_device((parent, name, id), (newparent, newname, target), uid, gid)
        else:
            self._move((parent, name, id), (newparent, newname, target))

    def _check_redirect(self, id: int) -> None:
        """EXDEV for a directory that would need a redirect where none may be written, before anything is done."""
        if self.features.redirects or not id or not self._is_directory(id):
            return
        node = self.nodes.get(id)
        if not isinstance(node, Directory) or node.lower_dir:
            raise error(errno.EXDEV)

    def _is_directory(self, id: int) -> bool:
        return stat.S_ISDIR(wire.Attr.unpack(self.attr(id)).mode)

    def _check_replacing(self, id: int, target: int, newname: bytes) -> None:
        if not target:
            return
        if self._is_directory(id):
            if not self._is_directory(target):
                raise error(errno.ENOTDIR, newname)
            if not self.is_empty(target):
                raise error(errno.ENOTEMPTY, newname)
        elif self._is_directory(target):
            raise error(errno.EISDIR, newname)

    def _move(self, source: tuple[int, bytes, int], target: tuple[int, bytes, int]) -> None:
        (parent, name, id), (newparent, newname, replaced) = source, target
        node = self.materialise(parent, name, id)
        old, new = self.promote_directory(parent), self.promote_directory(newparent)
        replaced_node = self._replaced(newparent, newname, replaced)
        had_upper = self.names(new).get(newname) not in (None, WHITEOUT)
        known = self.names(new).get(newname)
        self.recheck(old, name)
        self.recheck(new, newname)
        in_tree = self.in_tree(new, newname) if known is None else not new.is_extra(newname)
        if isinstance(node, Directory):
            self._mark_moved(node, in_tree)
        if replaced_node is not None and had_upper:
            self.keep(replaced_node, new, newname)
            if isinstance(replaced_node, Directory):
                self._empty(replaced_node, new, newname, in_tree)
        if self._rename(node, old, name, new, newname):
            old.set(name, WHITEOUT, in_tree=not old.is_extra(name))
        else:
            old.drop(name)
        if replaced:
            self.name_gone(replaced, replaced_node, new, newname)
        new.set(newname, node.id, in_tree)
        node.add_name(new, newname)
        node.drop_name(old, name)

    def _move_leaving_device(
        self, source: tuple[int, bytes, int], target: tuple[int, bytes, int], uid: int, gid: int
    ) -> None:
        """The device is written down before the move and put in place after it; see `unionfs.upper.leaving`."""
        parent, name, id = source
        self.materialise(parent, name, id)  # Whether it is there on disk then says whether it has moved.
        old = self.promote_directory(parent)
        leaving.settle(self.upper)  # of a rename before, where that could not be
        kept = self.override_for(stat.S_IFCHR, self.owner_of_new(old, uid, gid))
        assert kept is not None
        leaving.prepare(self.upper, _path(old, name), kept)
        try:
            self._move(source, target)
        finally:
            with tidying("leaving a device where something moved away"):
                leaving.settle(self.upper)
        status = whiteout.probe(self.upper.directory(old), name, aufs=False)
        if isinstance(status, os.stat_result):
            _, node = self.enter(Vacancy(old, name, self.names(old).get(name) == WHITEOUT), status, kept, False)
            node.lookups = 0  # nobody asked for it yet

    def _replaced(self, parent: int, name: bytes, id: int) -> Node | None:
        """The node that is replaced, in the upper where its other names need that; None for the tree's or none."""
        if not id:
            return None
        node = self.nodes.get(id)
        attr = wire.Attr.unpack(self.attr(id))
        if not stat.S_ISDIR(attr.mode) and (node is not None or attr.nlink > 1):
            return self.materialise(parent, name, id)
        return node

    def _rename(self, node: Node, old: Directory, name: bytes, new: Directory, newname: bytes) -> bool:
        """The move itself, leaving a whiteout where the tree would show through; says whether one is there now."""
        upper = self.upper
        old_fd, new_fd = upper.directory(old), upper.directory(new)
        old_fd = upper.directory(old)  # The second may have pushed the first out, if it had to be reopened.
        leave = not old.is_extra(name)
        over_mark = self.names(new).get(newname) == WHITEOUT
        if over_mark and isinstance(node, Directory) and whiteout.exists(new_fd, newname):
            if not upper.able.exchange:
                upper.turn_into_file(new_fd, newname)
                return self._rename(node, old, name, new, newname)
            # A directory cannot be renamed over a device: they change places.
            upper.move(old_fd, name, new_fd, newname, syscalls.RENAME_EXCHANGE)
            if not leave:
                with tidying("removing a whiteout that hides nothing"):
                    os.unlink(name, dir_fd=old_fd)
                    return False
            return True
        upper.rename_leaving(old_fd, name, new_fd, newname, leave)
        if over_mark:
            upper.reveal_file(new_fd, newname)
        return leave

    def _empty(self, directory: Directory, parent: Directory, name: bytes, in_tree: bool) -> None:
        """Let a directory that shows no entries be empty on disk too, so that it can be replaced.

        It may hold marks. What they hide goes on being hidden by a mark on it, or beside it where there are no xattrs.
        """
        upper = self.upper
        above, place = upper.directory(parent), upper.directory(directory)
        held = os.listdir(whiteout.path(place))
        if held and (directory.lower_dir or in_tree):
            upper.whiteouts.mark_opaque_outside(place, above, name)
        for mark in held:
            os.unlink(os.fsencode(mark), dir_fd=place)

    def _exchange(self, one: tuple[int, bytes, int], other: tuple[int, bytes, int]) -> None:
        (parent, name, id), (newparent, newname, newid) = one, other
        if id == newid:
            return
        if not self.upper.able.exchange:
            raise error(errno.EINVAL)
        first, second = self.materialise(parent, name, id), self.materialise(newparent, newname, newid)
        old, new = self.promote_directory(parent), self.promote_directory(newparent)
        self.recheck(old, name)
        self.recheck(new, newname)
        if isinstance(first, Directory):
            self._mark_moved(first, not new.is_extra(newname))
        if isinstance(second, Directory):
            self._mark_moved(second, not old.is_extra(name))
        old_fd, new_fd = self.upper.directory(old), self.upper.directory(new)
        self.upper.move(old_fd, name, new_fd, newname, syscalls.RENAME_EXCHANGE)
        for node, left, taken in ((first, (old, name), (new, newname)), (second, (new, newname), (old, name))):
            node.add_name(*taken)
            node.drop_name(*left)
            self.names(taken[0])[taken[1]] = node.id

    def _mark_moved(self, directory: Directory, in_tree: bool) -> None:
        """Mark a directory for its new place, where the tree shows something of that name or not."""
        if directory.lower_dir:
            self._set_redirect(directory)
        elif in_tree:
            self.upper.whiteouts.mark_opaque(self.upper.directory(directory))

    def _set_redirect(self, directory: Directory) -> None:
        try:
            self.upper.set_mark(directory, REDIRECT, self._tree_path(directory.lower_dir))
        except OSError as failure:
            # Without xattrs, or with too long a one, there is no redirect: mv(1) then copies, as it does
            # between file systems, and as the kernel's overlayfs makes it (redirect_dir=off).
            if failure.errno in (*NO_XATTR, errno.E2BIG, errno.ERANGE):
                raise error(errno.EXDEV) from failure
            raise

    def _tree_path(self, id: int) -> bytes:
        parts: list[bytes] = []
        while id != ROOT:
            id, name = self.tree.names(id)[0]
            parts.append(name)
        return b"/" + b"/".join(reversed(parts))


def _path(directory: Directory, name: bytes) -> bytes:
    """Where a name is below the upper directory."""
    while directory.where is not None:
        directory, above = directory.where
        name = above + b"/" + name
    return name
