"""What changes a file or its attributes: write, truncate, setattr, fallocate, fsync, copies."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import NamedTuple

from unionfs import copying, syscalls
from unionfs.fuse import wire
from unionfs.fuse.wire import Fattr
from unionfs.nodes import Directory, Node
from unionfs.union.attributes import ANY_GROUP
from unionfs.union.core import error
from unionfs.union.hardlinks import HardLinks


class SetAttr(NamedTuple):
    """What setattr is to change: `valid` says which fields count; times in nanoseconds."""

    valid: int
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    atime: int = 0
    mtime: int = 0
    group: int = ANY_GROUP
    """The caller's: for KILL_SUIDGID, which comes with every chown(2)."""


class Later:
    """The rest of a call that may block for long on a descriptor of its own; `work` may run in any thread."""

    def __init__(self, fd: int, call: Callable[[int], object]) -> None:
        self._fd = os.dup(fd)
        self._call = call

    def work(self) -> None:
        """Do it; raises `OSError`."""
        try:
            self._call(self._fd)
        finally:
            os.close(self._fd)


class Writing(HardLinks):
    """Changes of files that stay where they are."""

    def setattr(self, id: int, change: SetAttr) -> bytes | memoryview:
        """Change attributes; answers with all of them as they are then."""
        valid = change.valid
        size = change.size if valid & Fattr.SIZE else None
        cut = size is not None and self.is_lower(id) and self._may_cut(id, size)
        node = self.changing(id, keep=size if cut else None)
        if size is not None and not cut:  # a promotion that cuts has done it
            os.ftruncate(self.upper.file(node), size)
        if valid & Fattr.KILL_SUIDGID:
            self.clear_setid(node, change.group)
        if valid & (Fattr.UID | Fattr.GID):
            uid = change.uid if valid & Fattr.UID else -1
            self.set_owner(node, uid, change.gid if valid & Fattr.GID else -1)
        if valid & Fattr.MODE:
            self.set_mode(node, change.mode)
        if valid & (Fattr.ATIME | Fattr.MTIME) and self.may_dress(node):
            times = self._times(node, change)
            target, dir_fd, follow = self.upper.place(node)
            os.utime(target, ns=times, dir_fd=dir_fd, follow_symlinks=follow)
        status = self.upper.stat(node)
        if isinstance(node, Directory):
            self.note_directory(node, status)
        return self.pack(node, status)

    def _may_cut(self, id: int, size: int) -> bool:
        """Whether a file of the tree may be promoted cut already: not where another name of it may be refused then."""
        attr = wire.Attr.unpack(self.tree.attr(id))
        return size < attr.size and attr.nlink == 1

    def _times(self, node: Node, change: SetAttr) -> tuple[int, int]:
        if change.valid & Fattr.ATIME and change.valid & Fattr.MTIME:
            return change.atime, change.mtime
        status = self.upper.stat(node)
        atime = change.atime if change.valid & Fattr.ATIME else status.st_atime_ns
        mtime = change.mtime if change.valid & Fattr.MTIME else status.st_mtime_ns
        return atime, mtime

    def write(
        self, id: int, offset: int, data: bytes | memoryview, kill_setid: int | None = None, *, whole: bool = True
    ) -> int:
        """Write `data`; answers with how much. `whole`: all of it, or it is an error, since nobody reads the answer.

        `kill_setid` here and below: the group of a caller who may not keep set-id bits.
        """
        node = self.changing(id)
        self._remove_privileges(node, kill_setid)
        fd = self.upper.file(node)
        written = os.pwrite(fd, data, offset)
        while whole and written < len(data):
            written += os.pwrite(fd, memoryview(data)[written:], offset + written)
        return written

    def _remove_privileges(self, node: Node, kill_setid: int | None) -> None:
        """Before the content changes. Afterwards the kernel asks for size and times anew, but not for the mode
        (FUSE_STATX_MODSIZE in fs/fuse/fuse_i.h): execve(2) would go on giving what the bits gave.
        """
        if kill_setid is not None and self.clear_setid(node, kill_setid):
            self.outdate(node.id)

    def end(self, id: int) -> int:
        """Where a file ends that is `boundless` as yet."""
        return self.upper.stat(self.changing(id)).st_size

    def fallocate(self, id: int, mode: int, offset: int, length: int, kill_setid: int | None = None) -> None:
        """fallocate(2) in all modes that the upper's file system has."""
        node = self.changing(id)
        self._remove_privileges(node, kill_setid)
        syscalls.fallocate(self.upper.file(node), mode, offset, length)

    def copy_file_range(
        self,
        source: int,
        source_offset: int,
        target: int,
        target_offset: int,
        length: int,
        kill_setid: int | None = None,
    ) -> int:
        """copy_file_range(2) between two files of the mount; answers with how much was copied."""
        node = self.changing(target)
        self._remove_privileges(node, kill_setid)
        run = self.locate(source, source_offset, length)
        if run.fd < 0:
            raise error(errno.EOPNOTSUPP)  # The kernel copies through the page cache then.
        fd = os.dup(run.fd)
        try:
            copied = copying.copy_range(fd, run.offset, self.upper.file(node), target_offset, run.length)
            if copied < run.length and self.keeps_promises(source):
                raise copying.ended_early()
            return copied
        finally:
            os.close(fd)

    def fsync(self, id: int, datasync: bool) -> Later | None:
        """Bring a file or directory to the disk. What is the tree's was never written here."""
        node = self.nodes.get(id)
        if not self.durable or node is None or node.lower:
            return None
        call = os.fdatasync if datasync else os.fsync
        if isinstance(node, Directory):
            fd = os.open(self.upper.path(node)[0], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                return Later(fd, call)
            finally:
                os.close(fd)
        if not stat.S_ISREG(self.upper.stat(node).st_mode):
            return None
        return Later(self.upper.file(node), call)

    def syncfs(self) -> Later | None:
        """Bring everything to the disk."""
        return Later(self.upper.root, syscalls.syncfs) if self.durable else None
