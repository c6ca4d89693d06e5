"""Extended attributes. The marks of layers are never shown, and nobody may set one through the mount."""

from __future__ import annotations

import errno
import os
from functools import cache

from unionfs import whiteout
from unionfs.union.core import error
from unionfs.union.promote import Promotion

_CAP_SYS_ADMIN = 21


class Xattrs(Promotion):
    """getxattr(2) and its family."""

    def getxattr(self, id: int, name: bytes) -> bytes:
        """One value; ENODATA where there is none."""
        if whiteout.is_hidden_xattr(name):
            raise error(errno.ENODATA)
        node = self.nodes.get(id)
        if node is None or node.lower:
            value = self.tree.xattrs(id).get(name)
            if value is None:
                raise error(errno.ENODATA)
            return value
        path, follow = self.upper.path(node)
        return os.getxattr(path, name, follow_symlinks=follow)

    def listxattr(self, id: int) -> list[bytes]:
        """All names that show."""
        node = self.nodes.get(id)
        if node is None or node.lower:
            shown = _sees_trusted()
            return [name for name in self.tree.xattrs(id) if shown or not name.startswith(b"trusted.")]
        path, follow = self.upper.path(node)
        names = map(os.fsencode, os.listxattr(path, follow_symlinks=follow))
        return [name for name in names if not whiteout.is_hidden_xattr(name)]

    def setxattr(self, id: int, name: bytes, value: bytes, flags: int) -> None:
        """Set one; flags are XATTR_CREATE and XATTR_REPLACE."""
        self._refuse_marks(name)
        path, follow = self.upper.path(self.promote(id))
        os.setxattr(path, name, value, flags, follow_symlinks=follow)

    def removexattr(self, id: int, name: bytes) -> None:
        """Remove one; ENODATA where there is none, without promoting for it."""
        self._refuse_marks(name)
        if id not in self.nodes and name not in self.tree.xattrs(id):
            raise error(errno.ENODATA)
        path, follow = self.upper.path(self.promote(id))
        os.removexattr(path, name, follow_symlinks=follow)

    @staticmethod
    def _refuse_marks(name: bytes) -> None:
        if whiteout.is_hidden_xattr(name):
            raise error(errno.EPERM)


@cache
def _sees_trusted() -> bool:
    """Whether trusted.* may be read here: by CAP_SYS_ADMIN in the initial user namespace alone, xattr(7).

    The kernel refuses to read it otherwise, but leaves it to the file system to keep it out of lists, and a name
    that is listed and cannot be read makes tar and rsync fail. A server has the privilege or lacks it for good.
    """
    with open("/proc/self/uid_map", "rb") as file:
        if file.read().split() != [b"0", b"0", b"4294967295"]:
            return False
    with open("/proc/self/status", "rb") as file:
        effective = next(line for line in file if line.startswith(b"CapEff:"))
    return bool(int(effective.split()[1], 16) >> _CAP_SYS_ADMIN & 1)
