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

from unionfs import copying
from unionfs.fuse import wire
from unionfs.nodes import Directory, Node
from unionfs.override import Override
from unionfs.tree import BOUNDLESS, ROOT
from unionfs.union.attributes import override_of
from unionfs.union.core import error
from unionfs.union.dressing import Dressing

COPY_INLINE = 1 << 20
"""Up to so many bytes a file is copied at once: less work than handing it to another thread."""


class Busy(Exception):
    """The node is being promoted: do the call again when `job` is finished."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job


class Job:
    """The copy of one file. `work` may run in any thread, once; `finish` only in the owner's, after it."""

    def __init__(
        self,
        union: Promotion,
        id: int,
        temporary: bytes,
        fd: int,
        runs: list[tuple[int, int, int]],
        at: tuple[int, bytes] | None,
    ) -> None:
        self._union = union
        self.id = id
        self.temporary = temporary
        self.fd = fd
        self.at = at
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
    if runs and runs[0][2] == BOUNDLESS:
        copying.copy_until_end(runs[0][0], target, BOUNDLESS)
        return
    position = 0
    for source, offset, length in runs:
        if source >= 0:
            if len(runs) == 1 and not offset:
                copying.copy_file(source, target, length)
            else:
                copying.copy_whole(source, offset, target, position, length)
        position += length
    os.ftruncate(target, position)


def _copied_at_once(runs: list[tuple[int, int, int]], target: int, size: int) -> bool:
    """Copy what is not much; False where that is for a worker, who begins anew."""
    if size == BOUNDLESS:
        return copying.copy_until_end(runs[0][0], target, COPY_INLINE)
    if size > COPY_INLINE:
        return False
    copy_runs(runs, target)
    return True


class Promotion(Dressing):
    """The read side with promotion."""

    def is_lower(self, id: int) -> bool:
        """Whether the tree answers for a node: it has no file or directory in the upper."""
        node = self.nodes.get(id)
        return node is None or node.lower

    def promote(self, id: int, keep: int | None = None, at: tuple[int, bytes] | None = None) -> Node:
        """The node in the upper, promoted if it was not. `keep`: only so many bytes of its data matter.

        `at`: by which of its names in the tree, where there are several.
        """
        if not self.is_lower(id):
            return self.nodes[id]
        attr = wire.Attr.unpack(self.tree.attr(id))
        if stat.S_ISDIR(attr.mode):
            return self.promote_directory(id)
        if keep != 0 and self.tree.boundless(id):
            attr, keep = attr._replace(size=BOUNDLESS), None
        size = attr.size if keep is None else min(keep, attr.size)
        if not stat.S_ISREG(attr.mode):
            return self._promote_special(id, attr, at)
        return self._promote_file(id, attr, size, at)

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
        kept = self.kept(attr)
        temporary = self.upper.temporary()
        try:
            os.mkdir(temporary, 0o700, dir_fd=self.upper.work)
            self.dress(temporary, attr, self.tree.xattrs(id), kept)
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

    def _promote_file(self, id: int, attr: wire.Attr, size: int, at: tuple[int, bytes] | None) -> Node:
        running = self.jobs.get(id)
        if running is not None:
            raise Busy(running)
        runs = self._runs(id, size)
        temporary = self.upper.temporary()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600, dir_fd=self.upper.work)
        try:
            if _copied_at_once(runs, fd, size):
                return self._complete(id, attr, temporary, fd, at)
            job = self.jobs[id] = Job(self, id, temporary, fd, _own(runs), at)
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
            self.insist(lambda: self._complete(job.id, attr, job.temporary, job.fd, job.at))
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

    def _complete(self, id: int, attr: wire.Attr, temporary: bytes, fd: int, at: tuple[int, bytes] | None) -> Node:
        """Owner, marks and times of a copied file, then its place. Owns `fd` when it returns."""
        place = self._place(id, at)
        status = os.fstat(fd)
        if status.st_size < attr.size:  # cut before it shows, so its time has to show that, too
            seconds, nanoseconds = divmod(status.st_mtime_ns, 10**9)
            attr = attr._replace(mtime=seconds, mtimensec=nanoseconds)
        mark = b"%d" % attr.ino if attr.nlink == 1 else None
        kept = self.kept(attr)
        marked = self.dress(temporary, attr, self.tree.xattrs(id), kept, fd=fd, origin=mark)
        if place is None:
            node = Node(id, attr.ino, None)
            self.upper.hold(node, fd)
            self.upper.discard(temporary)
            self._settle(node, kept)
            return node
        node = self._settle_file(id, attr, kept, temporary, place, recorded=not marked)
        self.upper.keep_file(node, fd)
        return node

    def _promote_special(self, id: int, attr: wire.Attr, at: tuple[int, bytes] | None) -> Node:
        """Symbolic links, fifos, sockets and devices."""
        temporary = self.upper.temporary()
        work = self.upper.work
        kept = self._make_special(id, attr, temporary)
        try:
            self.dress(temporary, attr, self.tree.xattrs(id), kept)
            place = self._place(id, at)
            if place is not None:
                return self._settle_file(id, attr, kept, temporary, place, recorded=True)
            node = Node(id, attr.ino, None)
            self.upper.hold(node, os.open(temporary, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=work))
            self.upper.discard(temporary)
            self._settle(node, kept)
            return node
        except BaseException:
            self.upper.discard_if_there(temporary)
            raise

    def _make_special(self, id: int, attr: wire.Attr, temporary: bytes) -> Override | None:
        """What is no regular file, without its attributes; the override that it needs."""
        work = self.upper.work
        kept = self.kept(attr)
        if stat.S_ISLNK(attr.mode):
            self.make_symlink(work, temporary, self.tree.readlink(id), kept)
            return kept
        rdev = os.makedev(*wire.decode_rdev(attr.rdev))
        try:
            self.make_special(work, temporary, stat.S_IFMT(attr.mode) | 0o600, rdev, kept)
        except OSError as failure:
            if failure.errno != errno.EPERM:  # a device, which only real root may make (mknod(2))
                raise
            self.upper.note_override()
            self.make_stand_in(work, temporary)
            return override_of(attr, self.stored_owner(attr))
        return kept

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
        if recorded and self.upper.able.links:
            with self.links.record(temporary, attr.ino, attr.nlink):
                self._publish(temporary, *place)
            self.note_record(node)
        else:
            self._publish(temporary, *place)
            if attr.nlink > 1:
                self._note_names(node)
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
        self._note_names(node)

    def _note_names(self, node: Node) -> None:
        """What the tree has ready of directories with other names of a promoted file is out of date."""
        node.row = node.id
        self.spread = True
        if self.tree.stable:
            self.unready.update(parent for parent, _ in self.tree.names(node.id))

    def _settle(self, node: Node, kept: Override | None) -> None:
        """From now on the upper answers for a node of the tree."""
        was = self.nodes.get(node.id)
        if was is None and not self.tree.stable:
            self.tree.remember(node.id)
        node.override = kept
        self.nodes[node.id] = node

    def _place(self, id: int, at: tuple[int, bytes] | None) -> tuple[Directory, bytes] | None:
        """A name by which the node shows, `at` if it is one, its directory promoted; None if it was removed."""
        if id in self.nodes:
            return None
        for parent, name in [at, *self.tree.names(id)] if at else self.tree.names(id):
            if self.shows(parent, name):
                return self.promote_directory(parent), name
        return None

    def shows(self, parent: int, name: bytes) -> bool:
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
        """Move into place, which changes nothing that shows."""
        with self.upper.keeping_times(directory):
            self.upper.publish(temporary, directory, name, over_mark=False)


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
