"""Extended attributes. The marks of layers are never shown; what a program sets by such a name is none on disk."""

from __future__ import annotations

import errno
import os
import stat
from functools import cache

from unionfs import acl, ownership, xattrnames
from unionfs.nodes import Directory, Node
from unionfs.union.core import error
from unionfs.union.hardlinks import HardLinks

_CAP_SYS_ADMIN = 21
_CAPABILITY = b"security.capability"


class Xattrs(HardLinks):
    """getxattr(2) and its family."""

    def getxattr(self, id: int, name: bytes) -> bytes:
        """One value; ENODATA where there is none."""
        self._check(name)
        value = self._value(id, name)
        return acl.shown(value, self.owners) if name in acl.NAMES else value

    def _value(self, id: int, name: bytes) -> bytes:
        node = self.nodes.get(id)
        if node is None or node.lower:
            value = self.tree.xattrs(id).get(name)
            if value is None:
                raise error(errno.ENODATA)
            return value
        if node.bare and name == _CAPABILITY:
            raise error(errno.ENODATA)
        target, follow = self.upper.target(node)
        try:
            return os.getxattr(target, self._stored(name), follow_symlinks=follow)
        except OSError as failure:
            node.bare = node.bare or (name == _CAPABILITY and failure.errno == errno.ENODATA)
            # The kernel takes every other errno for a reason to refuse access (fuse_get_acl()).
            if name in acl.NAMES and failure.errno == errno.EOPNOTSUPP:
                raise error(errno.ENODATA) from failure
            raise

    def listxattr(self, id: int) -> list[bytes]:
        """All names that show."""
        self._check()
        hidden = () if self.features.acls else acl.NAMES
        return [name for name in self._names(id) if name not in hidden]

    def _names(self, id: int) -> list[bytes]:
        node = self.nodes.get(id)
        if node is None or node.lower:
            shown = _sees_trusted()
            return [name for name in self.tree.xattrs(id) if shown or not name.startswith(b"trusted.")]
        target, follow = self.upper.target(node)
        names = map(os.fsencode, os.listxattr(target, follow_symlinks=follow))
        return [own for name in names if (own := xattrnames.shown(name, self.upper.overrides)) is not None]

    def setxattr(self, id: int, name: bytes, value: bytes, flags: int, kill_setgid: bool = False) -> None:
        """Set one; flags are XATTR_CREATE and XATTR_REPLACE. `kill_setgid`: whoever sets this ACL loses that bit."""
        self._check(name)
        if name in acl.NAMES:
            if self.upper.overrides:
                raise error(errno.EOPNOTSUPP)  # it would have to agree with the mode on the host
            value = acl.stored(value, self.owners)
        node = self.changing(id)
        if name in acl.NAMES and node.override is not None:
            raise error(errno.EOPNOTSUPP)
        self.upper.open_up_node(node)
        target, follow = self.upper.target(node)
        node.bare = node.bare and name != _CAPABILITY
        os.setxattr(target, self._stored(name), value, flags, follow_symlinks=follow)
        self._acl_changed(node, name)
        if kill_setgid and self.mode_of(node) & stat.S_ISGID:
            self.set_mode(node, self.mode_of(node) & ~stat.S_ISGID)

    def removexattr(self, id: int, name: bytes) -> None:
        """Remove one; ENODATA where there is none, without promoting for it."""
        self._check(name)
        if self.upper_or_none is None:
            raise error(errno.EROFS)
        if id not in self.nodes and name not in self.tree.xattrs(id):
            raise error(errno.ENODATA)
        node = self.changing(id)
        self.upper.open_up_node(node)
        target, follow = self.upper.target(node)
        os.removexattr(target, self._stored(name), follow_symlinks=follow)
        self._acl_changed(node, name)

    def _check(self, name: bytes = b"") -> None:
        """Where there are no xattrs: ENOSYS, which the kernel turns into EOPNOTSUPP, and does not ask again."""
        if not self.features.xattrs:
            raise error(errno.ENOSYS)
        if name in acl.NAMES and not self.features.acls:
            raise error(errno.EOPNOTSUPP)

    def _stored(self, name: bytes) -> bytes:
        """The name that an xattr has on disk."""
        return xattrnames.stored(name, self.upper.overrides)

    @staticmethod
    def _acl_changed(node: Node, name: bytes) -> None:
        if isinstance(node, Directory) and name == acl.DEFAULT:
            node.default_acl = None


@cache
def _sees_trusted() -> bool:
    """Whether trusted.* may be read here: by CAP_SYS_ADMIN in the initial user namespace alone, xattr(7).

    The kernel refuses to read it otherwise, but leaves it to the file system to keep it out of lists, and a name
    that is listed and cannot be read makes tar and rsync fail. A server has the privilege or lacks it for good.
    """
    if not ownership.in_initial_namespace():
        return False
    with open("/proc/self/status", "rb") as file:
        effective = next(line for line in file if line.startswith(b"CapEff:"))
    return bool(int(effective.split()[1], 16) >> _CAP_SYS_ADMIN & 1)
