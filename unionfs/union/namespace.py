"""What makes and removes names: mknod, mkdir, symlink, link, unlink, rmdir."""

from __future__ import annotations

import errno
import functools
import os
import stat
from collections.abc import Callable

from unionfs import override, whiteout
from unionfs.fuse import wire
from unionfs.nodes import WHITEOUT, Directory, Node
from unionfs.override import Override
from unionfs.union.attributes import host_mode
from unionfs.union.core import check_new_name, error
from unionfs.union.hardlinks import HardLinks

Maker = Callable[[Override | None, int, bytes], int]
"""A `Make` of the upper, told first which override comes with what it makes."""

_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Vacancy:
    """A name that is free to be taken, in a directory that is in the upper."""

    __slots__ = ("directory", "in_tree", "name", "over_mark")

    def __init__(self, directory: Directory, name: bytes, over_mark: bool) -> None:
        self.directory = directory
        self.name = name
        self.over_mark = over_mark  # a whiteout is there and has to go
        self.in_tree = over_mark and not directory.is_extra(name)


class Namespace(HardLinks):
    """Changes of names."""

    def vacancy(self, parent: int, name: bytes) -> Vacancy:
        """Where a new name goes; EEXIST if it is taken. Promotes the directory."""
        check_new_name(name)
        directory = self.promote_directory(parent)
        known = self.names(directory).get(name)
        if known not in (None, WHITEOUT) or (known is None and self.in_tree(directory, name)):
            raise error(errno.EEXIST, name)
        return Vacancy(directory, name, known == WHITEOUT)

    def mknod(self, parent: int, name: bytes, mode: int, rdev: int, uid: int, gid: int, umask: int = 0) -> bytes:
        """A file of any kind but directory and symbolic link; `rdev` in the wire's encoding.

        `umask` counts unless the directory has a default ACL (acl(5)), here as in the other calls that make something.
        The whiteout device is one like any other here (`unionfs.union.attributes`).
        """
        place = self.vacancy(parent, name)
        mode = self.masked(place.directory, mode, umask)
        device = rdev and os.makedev(*wire.decode_rdev(rdev))

        def make(kept: Override | None, dir_fd: int, at: bytes) -> int:
            if stat.S_ISREG(mode):
                return os.open(at, _CREATE, host_mode(mode, kept), dir_fd=dir_fd)
            self.make_special(dir_fd, at, mode, device, kept)
            return -1

        return self.make(place, make, mode, uid, gid, device)[0]

    def mkdir(self, parent: int, name: bytes, mode: int, uid: int, gid: int, umask: int = 0) -> bytes:
        """A directory. Where the tree has the name, it is opaque, so that nothing deleted comes back."""
        place = self.vacancy(parent, name)
        mode = stat.S_IFDIR | stat.S_IMODE(self.masked(place.directory, mode, umask))
        inherited = stat.S_ISGID if place.directory.gid >= 0 else 0

        def make(kept: Override | None, dir_fd: int, at: bytes) -> int:
            os.mkdir(at, host_mode(mode, kept), dir_fd=dir_fd)
            if place.in_tree:
                own = os.open(at, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
                try:
                    with self.upper.opened(own):
                        self.upper.whiteouts.mark_opaque(own)
                finally:
                    os.close(own)
            return -1

        entry, node = self.make(place, make, mode | inherited, uid, gid)
        assert isinstance(node, Directory)
        node.default_acl = place.directory.default_acl
        return entry

    def symlink(self, parent: int, name: bytes, target: bytes, uid: int, gid: int) -> bytes:
        """A symbolic link."""

        def make(kept: Override | None, dir_fd: int, at: bytes) -> int:
            self.make_symlink(dir_fd, at, target, kept)
            return -1

        entry, _ = self.make(self.vacancy(parent, name), make, stat.S_IFLNK | 0o777, uid, gid)
        return entry

    def tmpfile(self, parent: int, mode: int, uid: int, gid: int, umask: int = 0) -> bytes:
        """A regular file without a name (O_TMPFILE of open(2)), which `link` may give one.

        EOPNOTSUPP where the upper's file system has none.
        """
        directory = self.promote_directory(parent)
        mode = stat.S_IFREG | stat.S_IMODE(self.masked(directory, mode, umask))
        flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
        owner = self.owner_of_new(directory, uid, gid)
        kept = self.override_for(mode, owner)
        fd = os.open(self.upper.path(directory)[0], flags, host_mode(mode, kept))
        try:
            self._give(fd, owner, directory.gid, mode, kept)
            status = os.fstat(fd)
        except BaseException:
            os.close(fd)
            raise
        node = Node(self.tree.new_id(), self.tree.foreign_ino(self.upper.device, status.st_ino), None)
        self.upper.hold(node, fd)
        node.override = kept
        node.lookups = 1
        node.bare = True
        self.nodes[node.id] = node
        return self.valid.entry(node.id, self.pack(node, status))

    def make(
        self,
        place: Vacancy,
        maker: Maker,
        mode: int,
        uid: int,
        gid: int,
        rdev: int = 0,
    ) -> tuple[bytes, Node]:
        """Make something at a vacant place, with its owner, and the node for it. `mode` has its type.

        Straight in place where nothing is replaced and it is complete as it is made, otherwise in the work directory.
        """
        upper, directory = self.upper, place.directory
        owner = self.owner_of_new(directory, uid, gid)
        kept = self.override_for(mode, owner, rdev)
        made_as = os.geteuid(), directory.gid if directory.gid >= 0 else os.getegid()
        staged = place.over_mark or kept is not None or owner not in (None, made_as)
        dir_fd = upper.work if staged else upper.directory(directory)
        at = upper.temporary() if staged else place.name
        acl = self.default_acl(directory) if staged else b""
        make = functools.partial(maker, kept)
        made, opened = False, -1
        try:
            opened = upper.make_below_acl(acl, at, make) if acl else make(dir_fd, at)
            made = True
            target = opened if opened >= 0 else whiteout.path(dir_fd, at)
            if not stat.S_ISLNK(mode) or upper.able.dressed_links:
                self._give(target, owner, -1 if staged else directory.gid, mode, kept)
            status = os.fstat(opened) if opened >= 0 else os.stat(at, dir_fd=dir_fd, follow_symlinks=False)
            if staged:
                upper.publish(at, directory, place.name, place.over_mark)
        except BaseException:
            if opened >= 0:
                os.close(opened)
            if staged:
                upper.discard_if_there(at)
            elif made:
                upper.remove(dir_fd, at)
            raise
        entry, node = self.enter(place, status, kept, stat.S_ISDIR(mode))
        if opened >= 0:
            upper.keep_file(node, opened)
        return entry, node

    @staticmethod
    def _give(target: int | bytes, owner: tuple[int, int] | None, group: int, mode: int, kept: Override | None) -> None:
        """Owner and set-id bits of something new, which chown(2) clears, or its override.

        `group` is what it got from the set-group-id directory that it was made in, -1 for none.
        """
        follow = isinstance(target, int)
        if kept is not None:
            override.write(target, kept)
            return
        if owner is not None and owner != (os.geteuid(), os.getegid() if group < 0 else group):
            os.chown(target, *owner, follow_symlinks=follow)
        special = mode & (stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX)  # the last is lost by mkdir(2) of bindfs
        if special:
            os.chmod(target, stat.S_IMODE(os.stat(target).st_mode) | special)  # an ACL may have changed the others

    def owner_of_new(self, directory: Directory, uid: int, gid: int) -> tuple[int, int] | None:
        """The owner of something new (inode_init_owner() of fs/inode.c); None where it stays as the server makes it."""
        inherited = directory.gid
        return self.owners.store_new(uid, inherited if inherited >= 0 else gid)

    def enter(
        self, place: Vacancy, status: os.stat_result, kept: Override | None, is_directory: bool
    ) -> tuple[bytes, Node]:
        """The node for something new that is in its place."""
        ino = self.tree.foreign_ino(self.upper.device, status.st_ino)
        where = place.directory, place.name
        node = Node(self.tree.new_id(), ino, where)
        if is_directory:
            node = directory = Directory(node.id, ino, where, 0)
            directory.names = {}
        node.override = kept
        if isinstance(node, Directory):
            self.note_directory(node, status)
        self.nodes[node.id] = node
        place.directory.set(place.name, node.id, place.in_tree)
        node.lookups = 1
        node.bare = True
        return self.valid.entry(node.id, self.pack(node, status)), node

    def link(self, id: int, parent: int, name: bytes) -> bytes:
        """A further name for a file."""
        node = self.changing(id)
        place = self.vacancy(parent, name)
        upper = self.upper
        path, follow = upper.path(node)
        if place.over_mark:
            temporary = upper.temporary()
            os.link(path, temporary, dst_dir_fd=upper.work, follow_symlinks=follow)
            upper.publish(temporary, place.directory, name, over_mark=True)
        else:
            # The path is good for one more descriptor: the cache keeps far more than the two that are in use.
            os.link(path, name, dst_dir_fd=upper.directory(place.directory), follow_symlinks=follow)
        place.directory.set(name, node.id, place.in_tree)
        node.add_name(place.directory, name)
        status = upper.stat(node)
        if not node.inode:
            self.note_inode(node, status.st_ino)
        node.lookups += 1
        return self.valid.entry(node.id, self.pack(node, status))

    # Removing.

    def unlink(self, parent: int, name: bytes) -> None:
        """Remove a name of anything but a directory."""
        id, node = self.known_child(parent, name)
        several = node is None and wire.Attr.unpack(self.tree.attr(id)).nlink > 1
        if self.upper.able.links and (node is not None or several):
            node = self.materialise(parent, name, id)  # The count of the other names has to be kept somewhere.
        directory = self.promote_directory(parent)
        if node is None or self.names(directory).get(name) is None:  # the tree alone has this name
            self._hide(directory, name)
            if not several or node is not None:
                self.name_gone(id, node, directory, name)
            return
        if not self.upper.able.links and self._leave_to_another(node, directory, name):
            return
        self.keep(node, directory, name)
        self.recheck(directory, name)
        if directory.is_extra(name):
            self.upper.unlink(self.upper.directory(directory), name)
            directory.drop(name)
        else:
            self.upper.replace_by_whiteout(directory, name)
            directory.set(name, WHITEOUT, in_tree=True)
        self.name_gone(id, node, directory, name)

    def _leave_to_another(self, node: Node, directory: Directory, name: bytes) -> bool:
        """Without hard links the upper has one name of a promoted file: another name of the tree takes it over."""
        if node.others or not node.row:
            return False
        other = next((place for place in self.tree.names(node.row) if self.shows(*place)), None)
        if other is None:
            return False
        place = self.promote_directory(other[0])
        old, new = self.upper.directory(directory), self.upper.directory(place)
        leave = not directory.is_extra(name)
        self.upper.rename_leaving(old, name, new, other[1], leave)
        if leave:
            directory.set(name, WHITEOUT, in_tree=True)
        else:
            directory.drop(name)
        place.set(other[1], node.id, in_tree=True)
        node.add_name(place, other[1])
        node.drop_name(directory, name)
        return True

    def rmdir(self, parent: int, name: bytes) -> None:
        """Remove a directory that shows no entries."""
        id, node = self.known_child(parent, name)
        if not self.is_empty(id):
            raise error(errno.ENOTEMPTY, name)
        directory = self.promote_directory(parent)
        self.recheck(directory, name)
        if node is None:
            self._hide(directory, name)
        elif directory.is_extra(name):
            self.keep(node, directory, name)
            self.upper.remove_directory(directory, name)
            directory.drop(name)
        else:
            self.keep(node, directory, name)
            self.upper.exchange_for_whiteout(directory, name)
            directory.set(name, WHITEOUT, in_tree=True)
        self.name_gone(id, node, directory, name)

    def _hide(self, directory: Directory, name: bytes) -> None:
        self.upper.whiteouts.hide(self.upper.directory(directory), name)
        directory.set(name, WHITEOUT, in_tree=True)

    def keep(self, node: Node, directory: Directory, name: bytes) -> None:
        """Before a name goes: if it is the only known one, a descriptor keeps the node reachable."""
        if node.left >= 0:
            assert self.links is not None
            self.links.settle(node.ino)
        if node.where == (directory, name) and not node.others and node.fd < 0 and node.hidden is None:
            self.upper.pin(node)

    def name_gone(self, id: int, node: Node | None, directory: Directory, name: bytes) -> None:
        """After a name went: what is known of the node is put right."""
        if node is None:
            removed = Node(id, 0, None)
            removed.lower = True
            self.nodes[id] = removed
            self.tree.remember(id)
            return
        node.drop_name(directory, name)
        if node.left < 0:
            return
        assert self.links is not None
        if node.links(self.upper.stat(node).st_nlink) - 1 + node.left == 0:
            if node.fd < 0 and node.hidden is None:
                self.upper.hold(node, self.links.open(node.ino))
            self.links.remove(node)
            del self.linked[node.ino]
