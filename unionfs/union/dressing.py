"""Owner, mode, xattrs, marks and times of what is copied up, while it still lies in the work directory.

The order: owner first, since chown(2) clears set-id bits and capabilities; mode after xattrs, since one without "w"
refuses them (xattr(7)); times last.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping

from unionfs import override, xattrnames
from unionfs.fuse import wire
from unionfs.override import Override
from unionfs.tree import ROOT
from unionfs.union.attributes import Attributes, host_mode
from unionfs.upper import NO_XATTR, ORIGIN

_PRIVATE_XATTRS = (b"trusted.", b"security.selinux", b"security.ima", b"security.evm")
"""What a server without privileges on the host cannot copy, and no process of its mount could have set: not worth a
word."""

_REFUSED = (*NO_XATTR, errno.EINVAL, errno.E2BIG, errno.ERANGE)
"""Answers to an xattr that this file system does not have (btrfs.*, ACLs), has no such value of (EINVAL: a property, or
an ACL with ids that are not mapped), or has no room for (E2BIG, ERANGE). ENOSPC may be a full disk, and is an error."""


class Dressing(Attributes):
    """What a node of the tree brings along."""

    _left_out = False  # whether it was said that the upper refuses some xattr

    def stored_owner(self, attr: wire.Attr) -> tuple[int, int] | None:
        return self.owners.store_copied(attr.uid, attr.gid)

    def kept(self, attr: wire.Attr) -> Override | None:
        """The override that a node of the tree needs in the upper."""
        rdev = os.makedev(*wire.decode_rdev(attr.rdev))
        return self.override_for(attr.mode, self.stored_owner(attr), rdev)

    def dress_root(self) -> None:
        """Give a new upper's own directory what the root of the tree has: from then on it is what is shown of it."""
        attr = wire.Attr.unpack(self.tree.attr(ROOT))
        self.dress(b".", attr, self.tree.xattrs(ROOT), self.kept(attr), place=self.upper.root)

    def dress(
        self,
        temporary: bytes,
        attr: wire.Attr,
        xattrs: Mapping[bytes, bytes],
        kept: Override | None,
        fd: int = -1,
        origin: bytes | None = None,
        place: int | None = None,
    ) -> bool:
        """Give a temporary the attributes of a node of the tree; says whether it could be marked with `origin`.

        `place` is the directory of the temporary, the work directory where it is None.
        """
        work = self.upper.work if place is None else place
        path = b"/proc/self/fd/%d/%s" % (work, temporary)
        self.upper.open_up_at(work, temporary)  # it may have its mode already: a try before was refused
        bare = stat.S_ISLNK(attr.mode) and not self.upper.able.dressed_links
        if kept is not None:
            override.write(path, kept)
        elif not bare:
            owner = self.stored_owner(attr)
            if owner is not None and owner != (os.geteuid(), os.getegid()):
                os.chown(temporary, *owner, dir_fd=work, follow_symlinks=False)
        for name, value in xattrs.items():
            self._copy_xattr(path, xattrnames.stored(name, self.upper.overrides), value)
        marked = origin is not None and self._mark_origin(fd, origin)
        if not stat.S_ISLNK(attr.mode):  # after the xattrs: a mode without "w" shuts the server out, too (xattr(7))
            os.chmod(path, host_mode(attr.mode, kept))
        times = attr.atime * 10**9 + attr.atimensec, attr.mtime * 10**9 + attr.mtimensec
        if not bare:
            os.utime(path, ns=times, follow_symlinks=False)
        return marked

    @staticmethod
    def _mark_origin(fd: int, origin: bytes) -> bool:
        try:
            os.setxattr(fd, ORIGIN, origin)
        except OSError as failure:
            # No room for xattrs (ENOSPC of ext4's block) counts as none: a record in origins/ serves instead.
            if failure.errno not in (*NO_XATTR, errno.ENOSPC):
                raise
            return False
        return True

    def _copy_xattr(self, path: bytes, name: bytes, value: bytes) -> None:
        """What the upper refuses is left out, as cp(1) does with -a, and said for the first."""
        try:
            os.setxattr(path, name, value, follow_symlinks=False)
        except OSError as failure:
            if failure.errno not in _REFUSED:
                raise
            if not self._left_out and not name.startswith(_PRIVATE_XATTRS):
                self._left_out = True
                _say_left_out(name, failure)


def _say_left_out(name: bytes, failure: OSError) -> None:
    import logging

    logging.getLogger("unionfs").warning(
        "the upper takes no xattr %s (%s): what is copied up goes without it and others like it",
        os.fsdecode(name),
        failure.strerror,
    )
