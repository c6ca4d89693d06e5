"""Owner, mode and type of what the upper has: in the inode or, where it cannot have them, in ``override_stat``.

An upper whose root carries that xattr keeps all of them there (`Upper.overrides`), for servers that may not chown(2).
Any upper keeps there what its file system refuses to this server, an owner or a device node, or what means something
else in a layer, the whiteout device. A regular file stands in for what may have no user xattrs: empty, or with the
target of a symbolic link as content. The union is the only writer, so `Node.override` is read once.
"""

from __future__ import annotations

import errno
import os
import stat

from unionfs import override
from unionfs.fuse import wire
from unionfs.nodes import Node
from unionfs.override import Override
from unionfs.union.core import error
from unionfs.union.reading import Reading

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


_REFUSED = (errno.EPERM, errno.EINVAL)
"""Answers of chown(2) to who may not give files away, and to an id that this user namespace does not map."""

ANY_GROUP = -1
"""The group of root, which may keep a file's set-group-ID bit as a member of its group may."""


class Attributes(Reading):
    """Reading and setting them."""

    def mode_of(self, node: Node) -> int:
        """``st_mode`` of a node that the upper has."""
        return self.upper.stat(node).st_mode if node.override is None else node.override.mode

    def set_owner(self, node: Node, uid: int, gid: int) -> None:
        """chown(2) with ids as the mount shows them; -1 leaves one as it is."""
        owner = self.owners.store(uid, gid)
        if owner is None:
            return
        was = self._overridden(node)
        if was is not None:
            uid, gid = (old if new == -1 else new for old, new in zip(was[:2], owner, strict=True))
            self._override(node, was._replace(uid=uid, gid=gid))
            return
        if not self.may_dress(node):
            return
        target, dir_fd, follow = self.upper.place(node)
        try:
            os.chown(target, *owner, dir_fd=dir_fd, follow_symlinks=follow)
        except OSError as refused:
            if refused.errno not in _REFUSED:
                raise
            self._keep_owner(node, owner, refused)

    def _keep_owner(self, node: Node, owner: tuple[int, int], refused: OSError) -> None:
        """Let an override say what the inode may not have. Raises `refused` for a type that takes no user xattrs."""
        status = self.upper.stat(node)
        if stat.S_IFMT(status.st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
            raise refused
        was = override.of(status)
        uid, gid = (old if new == -1 else new for old, new in zip(was[:2], owner, strict=True))
        self.upper.note_override()
        target, dir_fd, _ = self.upper.place(node)
        os.chmod(target, override.host_mode(was.mode), dir_fd=dir_fd)  # open to this server from now on
        try:
            self._override(node, was._replace(uid=uid, gid=gid))
        except BaseException:
            os.chmod(target, stat.S_IMODE(was.mode), dir_fd=dir_fd)
            raise

    def may_dress(self, node: Node) -> bool:
        """Whether owner and times of a node can be set; else, for links in some uppers, they stay as they are."""
        return self.upper.able.dressed_links or not stat.S_ISLNK(self.mode_of(node))

    def set_mode(self, node: Node, mode: int) -> None:
        """chmod(2). EOPNOTSUPP for a symbolic link, as Linux itself answers: it would change what that leads to."""
        was = self._overridden(node)
        target, dir_fd, _ = self.upper.place(node)
        if (was is not None or not isinstance(target, int)) and stat.S_ISLNK(self.mode_of(node)):
            raise error(errno.EOPNOTSUPP)
        if was is not None:
            self._override(node, was._replace(mode=stat.S_IFMT(was.mode) | stat.S_IMODE(mode)))
        else:
            os.chmod(target, stat.S_IMODE(mode), dir_fd=dir_fd)

    def clear_setid(self, node: Node, group: int) -> bool:
        """What file_remove_privs() does on a local disk, which lets a server with CAP_FSETID keep the bits.

        Says whether there were any.

        `group` is the caller's own, ANY_GROUP for root. Of its supplementary ones the kernel says nothing; they would
        count, too, where set-group-ID comes without execution by the group (setattr_should_drop_sgid() in fs/attr.c).
        """
        mode = self.mode_of(node)
        if not stat.S_ISREG(mode) or not mode & (stat.S_ISUID | stat.S_ISGID):
            return False
        keeps = not mode & stat.S_IXGRP and group in (ANY_GROUP, wire.Attr.unpack(self.attr(node.id)).gid)
        kill = stat.S_ISUID | (0 if keeps else stat.S_ISGID)
        if mode & kill:
            self.set_mode(node, mode & ~kill)
        return bool(mode & kill)

    def _overridden(self, node: Node) -> Override | None:
        """The override to change instead of the inode; None where the inode has it all."""
        if node.override is None and self.upper.overrides:
            status = self.upper.stat(node)
            return None if stat.S_ISLNK(status.st_mode) else override.of(status)
        return node.override

    def _override(self, node: Node, new: Override) -> None:
        target, follow = self.upper.target(node)
        override.write(target, new, follow)
        node.override = new

    # What is made.

    def override_for(self, mode: int, owner: tuple[int, int] | None, rdev: int = 0) -> Override | None:
        """The override that something new needs; None where the inode can have it all. `rdev` as st_rdev."""
        if not self.upper.overrides and not (stat.S_ISCHR(mode) and not rdev) and self._may_own(owner):
            return None
        self.upper.note_override()
        uid, gid = owner or (os.geteuid(), os.getegid())
        return Override(uid, gid, mode, rdev)

    def _may_own(self, owner: tuple[int, int] | None) -> bool:
        """Whether this server may give a file to somebody; tried once, in the work directory, for each owner."""
        if owner is None:
            return True
        known = self.ownable.get(owner)
        if known is None:
            known = self.ownable[owner] = self.upper.may_give_to(owner)
        return known

    def make_special(self, dir_fd: int, name: bytes, mode: int, rdev: int, kept: Override | None) -> None:
        """A fifo, socket or device, or the empty file that stands in for it."""
        if kept is None:
            os.mknod(name, mode, rdev, dir_fd=dir_fd)
        else:
            self.make_stand_in(dir_fd, name)

    def make_symlink(self, dir_fd: int, name: bytes, target: bytes, kept: Override | None) -> None:
        """A symbolic link, or the file with its target as content that stands in for it."""
        if kept is not None:
            self.make_stand_in(dir_fd, name, target)
        else:
            os.symlink(target, name, dir_fd=dir_fd)

    @staticmethod
    def make_stand_in(dir_fd: int, name: bytes, content: bytes = b"") -> None:
        """A regular file that an override makes something else."""
        fd = os.open(name, _NEW_FILE, 0o600, dir_fd=dir_fd)
        try:
            if os.write(fd, content) < len(content):
                raise error(errno.ENOSPC, name)
        finally:
            os.close(fd)


def host_mode(mode: int, kept: Override | None) -> int:
    """The permission bits on the host for a file or directory with such a mode, and with an override or not."""
    return stat.S_IMODE(mode) if kept is None else override.host_mode(mode)


def override_of(attr: wire.Attr, owner: tuple[int, int] | None) -> Override:
    """The override that keeps the attributes of a node of the tree."""
    uid, gid = owner or (os.geteuid(), os.getegid())
    return Override(uid, gid, attr.mode, os.makedev(*wire.decode_rdev(attr.rdev)))
