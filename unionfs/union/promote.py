"""Promotion (copy-up): giving a node of the tree its own file or directory in the upper.

Everything is made in the work directory and renamed into place when it is complete: data first, then owner, xattrs
and marks, mode (chown(2) clears set-id bits; a mode may refuse xattrs), and times last. A node keeps its id; from then
on the upper answers for it. Large files are copied by a worker: `promote` raises `Busy` then, nothing has happened
yet, and the call is made again when the job is finished.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping

from unionfs import copying, override
from unionfs.fuse import wire
from unionfs.nodes import Directory, Node
from unionfs.override import Override
from unionfs.tidying import tidying
from unionfs.tree import ROOT
from unionfs.union.attributes import Attributes, override_of
from unionfs.union.core import error
from unionfs.upper import NO_XATTR, ORIGIN

COPY_INLINE = 1 << 20
"""Up to so many bytes a file is copied at once: less work than handing it to another thread."""

_PRIVATE_XATTRS = (b"trusted.", b"security.selinux", b"security.ima", b"security.evm")
"""What a server without privileges on the host cannot copy, and no process of its mount could have set: not worth a
word."""

_REFUSED = (*NO_XATTR, errno.EINVAL, errno.E2BIG, errno.ERANGE)
"""Answers to an xattr that this file system does not have (btrfs.*, ACLs), has no such value of (EINVAL: a property, or
an ACL with ids that are not mapped), or has no room for (E2BIG, ERANGE). ENOSPC may be a full disk, and is an error."""


class Busy(Exception):
    """The node is being promoted: do the call again when `job` is finished."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job


class Job:
    """The copy of one file. `work` may run in any thread, once; `finish` only in the owner's, after it."""

    def __init__(self, union: Promotion, id: int, temporary: bytes, fd: int, runs: list[tuple[int, int, int]]) -> None:
        self._union = union
        self.id = id
        self.temporary = temporary
        self.fd = fd
        self.runs = runs  # (descriptor owned here or -1, offset, length)
        self.started = False
        self.error: OSError | None = None

    def work(self) -> None:
        """Copy the bytes. A failure is kept for `finish`."""
        try:
            copy_runs(self.runs, self.fd)
        except OSError as failure:
            self.error = failure
        except Exception:  # noqa: BLE001 (whatever it is, nothing of this copy may be published)
            self.error = self._unforeseen()
        finally:
            for source in {source for source, _, _ in self.runs if source >= 0}:
                os.close(source)

    def finish(self) -> None:
        """Publish the copy, or remove it and leave the reason in `error`."""
        try:
            self._union.finish(self)
        except OSError as failure:
            self.error = failure
        except Exception:  # noqa: BLE001 (who waits for it must be answered)
            self.error = self._unforeseen()

    def _unforeseen(self) -> OSError:
        import logging

        logging.getLogger(__name__).exception("copying up node %d", self.id)
        return error(errno.EIO)


def copy_runs(runs: list[tuple[int, int, int]], target: int) -> None:
    """Write runs of bytes one after the other; holes stay holes. EIO where a source ends within its run."""
    position = 0
    for source, offset, length in runs:
        if source >= 0:
            if len(runs) == 1 and not offset:
                copying.copy_file(source, target, length)
            else:
                copying.copy_whole(source, offset, target, position, length)
        position += length
    os.ftruncate(target, position)


class Promotion(Attributes):
    """The read side with promotion."""

    _left_out = False  # whether it was said that the upper refuses some xattr

    def is_lower(self, id: int) -> bool:
        """Whether the tree answers for a node: it has no file or directory in the upper."""
        node = self.nodes.get(id)
        return node is None or node.lower

    def promote(self, id: int, keep: int | None = None) -> Node:
        """The node in the upper, promoted if it was not. `keep`: only so many bytes of its data matter."""
        if not self.is_lower(id):
            return self.nodes[id]
        attr = wire.Attr.unpack(self.tree.attr(id))
        if stat.S_ISDIR(attr.mode):
            return self.promote_directory(id)
        size = attr.size if keep is None else min(keep, attr.size)
        if not stat.S_ISREG(attr.mode):
            return self._promote_special(id, attr)
        return self._promote_file(id, attr, size)

    def promote_directory(self, id: int) -> Directory:
        """The directory in the upper, with all above it."""
        if self.upper_or_none is None:
            raise error(errno.EROFS)
        missing = []
        while not isinstance(directory := self.nodes.get(id), Directory):
            if directory is not None:  # A removed directory of the tree: there is no place for it.
                raise error(errno.ESTALE)
            missing.append(id)
            id = self.tree.names(id)[0][0]
        if directory.removed and id != ROOT:
            raise error(errno.ENOENT)
        for id in reversed(missing):
            directory = self._make_directory(directory, self.tree.names(id)[0][1], id)
        return directory

    def _make_directory(self, parent: Directory, name: bytes, id: int) -> Directory:
        attr = wire.Attr.unpack(self.tree.attr(id))
        kept = self._kept(attr)
        temporary = self.upper.temporary()
        try:
            os.mkdir(temporary, 0o700, dir_fd=self.upper.work)
            self._dress(temporary, attr, self.tree.xattrs(id), kept)
            self._publish(temporary, parent, name)
        except BaseException:
            self.upper.discard_if_there(temporary)
            raise
        directory = Directory(id, attr.ino, (parent, name), id)
        directory.names = {}
        if attr.mode & stat.S_ISGID:
            directory.gid = self.owners.show(attr.uid, attr.gid)[1]
        self._settle(directory, kept)
        parent.set(name, id, in_tree=True)
        return directory

    def _promote_file(self, id: int, attr: wire.Attr, size: int) -> Node:
        running = self.jobs.get(id)
        if running is not None:
            raise Busy(running)
        runs = self._runs(id, size)
        temporary = self.upper.temporary()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600, dir_fd=self.upper.work)
        try:
            if size <= COPY_INLINE:
                copy_runs(runs, fd)
                return self._complete(id, attr, temporary, fd)
            job = self.jobs[id] = Job(self, id, temporary, fd, _own(runs))
        except BaseException:
            os.close(fd)
            self.upper.discard_if_there(temporary)
            raise
        raise Busy(job)

    def finish(self, job: Job) -> None:
        """Publish what a job copied; on any failure nothing of it stays."""
        del self.jobs[job.id]
        try:
            if job.error is not None:
                raise job.error
            attr = wire.Attr.unpack(self.tree.attr(job.id))
            self.insist(lambda: self._complete(job.id, attr, job.temporary, job.fd))
        except BaseException:
            os.close(job.fd)
            self.upper.discard_if_there(job.temporary)
            raise

    def _runs(self, id: int, size: int) -> list[tuple[int, int, int]]:
        """Where the first `size` bytes are. A live lower file is one run, so borrowing holds for the list."""
        runs, position = [], 0
        while position < size:
            fd, offset, length = self.tree.locate(id, position, size - position)
            if not length:
                break
            runs.append((fd, offset, length))
            position += length
        return runs

    def _complete(self, id: int, attr: wire.Attr, temporary: bytes, fd: int) -> Node:
        """Owner, marks and times of a copied file, then its place. Owns `fd` when it returns."""
        place = self._place(id)
        status = os.fstat(fd)
        if status.st_size < attr.size:  # cut before it shows, so its time has to show that, too
            seconds, nanoseconds = divmod(status.st_mtime_ns, 10**9)
            attr = attr._replace(mtime=seconds, mtimensec=nanoseconds)
        mark = b"%d" % attr.ino if attr.nlink == 1 else None
        kept = self._kept(attr)
        marked = self._dress(temporary, attr, self.tree.xattrs(id), kept, fd=fd, origin=mark)
        if place is None:
            os.unlink(temporary, dir_fd=self.upper.work)
            node = Node(id, attr.ino, None)
            node.fd = fd
            self._settle(node, kept)
            return node
        node = self._settle_file(id, attr, kept, temporary, place, recorded=not marked)
        self.upper.keep_file(node, fd)
        return node

    def _promote_special(self, id: int, attr: wire.Attr) -> Node:
        """Symbolic links, fifos, sockets and devices."""
        temporary = self.upper.temporary()
        work = self.upper.work
        kept = self._make_special(id, attr, temporary)
        try:
            self._dress(temporary, attr, self.tree.xattrs(id), kept)
            place = self._place(id)
            if place is not None:
                return self._settle_file(id, attr, kept, temporary, place, recorded=True)
            node = Node(id, attr.ino, None)
            node.fd = os.open(temporary, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=work)
            os.unlink(temporary, dir_fd=work)
            self._settle(node, kept)
            return node
        except BaseException:
            self.upper.discard_if_there(temporary)
            raise

    def _make_special(self, id: int, attr: wire.Attr, temporary: bytes) -> Override | None:
        """What is no regular file, without its attributes; the override that it needs."""
        work = self.upper.work
        if stat.S_ISLNK(attr.mode):
            self.make_symlink(work, temporary, self.tree.readlink(id))
            return self._kept(attr)
        rdev = os.makedev(*wire.decode_rdev(attr.rdev))
        try:
            self.make_special(work, temporary, stat.S_IFMT(attr.mode) | 0o600, rdev)
        except OSError as failure:
            if failure.errno != errno.EPERM:  # a device, which only real root may make (mknod(2))
                raise
            self.make_stand_in(work, temporary)
            return override_of(attr, self._stored_owner(attr))
        return self._kept(attr)

    def _stored_owner(self, attr: wire.Attr) -> tuple[int, int] | None:
        return self.owners.store_copied(attr.uid, attr.gid)

    def _kept(self, attr: wire.Attr) -> Override | None:
        """The override that a node of the tree needs in the upper."""
        rdev = os.makedev(*wire.decode_rdev(attr.rdev))
        return self.override_for(attr.mode, self._stored_owner(attr), rdev)

    def _settle_file(
        self,
        id: int,
        attr: wire.Attr,
        kept: Override | None,
        temporary: bytes,
        place: tuple[Directory, bytes],
        recorded: bool,
    ) -> Node:
        node = Node(id, attr.ino, place)
        assert self.links is not None
        if recorded:
            with self.links.record(temporary, attr.ino, attr.nlink):
                self._publish(temporary, *place)
            self.note_record(node)
        else:
            self._publish(temporary, *place)
        self._settle(node, kept)
        directory, name = place
        directory.set(name, id, in_tree=True)
        return node

    def note_record(self, node: Node) -> None:
        """A node got a record in origins/: its other names have to find it from now on."""
        assert self.links is not None
        node.left = self.links.left(node.ino)
        self.linked[node.ino] = node
        self.note_inode(node, self.upper.stat(node).st_ino)
        if self.tree.stable:
            self.unready.update(parent for parent, _ in self.tree.names(node.id))

    def _settle(self, node: Node, kept: Override | None) -> None:
        """From now on the upper answers for a node of the tree."""
        was = self.nodes.get(node.id)
        if was is None and not self.tree.stable:
            self.tree.remember(node.id)
        node.override = kept
        self.nodes[node.id] = node

    def _place(self, id: int) -> tuple[Directory, bytes] | None:
        """A name by which the node shows, its directory promoted; None if it was removed."""
        if id in self.nodes:
            return None
        for parent, name in self.tree.names(id):
            if self._shows(parent, name):
                return self.promote_directory(parent), name
        return None

    def _shows(self, parent: int, name: bytes) -> bool:
        """Whether a name of the tree is still what the mount shows there."""
        while True:
            directory = self.nodes.get(parent)
            if isinstance(directory, Directory):
                attached = directory.id == ROOT or not directory.removed
                return attached and directory.lower_dir == parent and self.names(directory).get(name) is None
            if directory is not None:
                return False
            parent, name = self.tree.names(parent)[0]

    def _publish(self, temporary: bytes, directory: Directory, name: bytes) -> None:
        """Move into place. Promotion changes nothing that shows, so the directory's times stay as they were."""
        upper = self.upper
        where = b"/proc/self/fd/%d" % upper.directory(directory)
        before = os.stat(where)
        upper.publish(temporary, directory, name, over_mark=False)
        with tidying("setting the times of a directory back"):
            os.utime(where, ns=(before.st_atime_ns, before.st_mtime_ns))

    def _dress(
        self,
        temporary: bytes,
        attr: wire.Attr,
        xattrs: Mapping[bytes, bytes],
        kept: Override | None,
        fd: int = -1,
        origin: bytes | None = None,
    ) -> bool:
        """Give a temporary the attributes of a node of the tree; says whether it could be marked with `origin`."""
        work = self.upper.work
        path = b"/proc/self/fd/%d/%s" % (work, temporary)
        self.upper.open_up_at(work, temporary)  # it may have its mode already: a try before was refused
        if kept is not None:
            override.write(path, kept)
        else:
            owner = self._stored_owner(attr)
            if owner is not None and owner != (os.geteuid(), os.getegid()):
                os.chown(temporary, *owner, dir_fd=work, follow_symlinks=False)
        for name, value in xattrs.items():
            self._copy_xattr(path, override.stored_xattr(name) if self.upper.overrides else name, value)
        marked = origin is not None and self._mark_origin(fd, origin)
        if not stat.S_ISLNK(attr.mode):  # after the xattrs: a mode without "w" shuts the server out, too (xattr(7))
            os.chmod(path, self.host_mode(attr.mode))
        times = attr.atime * 10**9 + attr.atimensec, attr.mtime * 10**9 + attr.mtimensec
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


def _own(runs: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """The same runs with descriptors of their own, one for each borrowed one."""
    copies: dict[int, int] = {}
    try:
        for fd, _, _ in runs:
            if fd >= 0 and fd not in copies:
                copies[fd] = os.dup(fd)
    except BaseException:
        for copy in copies.values():
            os.close(copy)
        raise
    return [(copies.get(fd, -1), offset, length) for fd, offset, length in runs]
