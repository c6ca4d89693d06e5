"""Where a node of the upper is: descriptors, names and paths that lead to it, and its status.

Everything is found from open directories, never by whole path, which renames above would change under us.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from unionfs import mountflags
from unionfs.descriptors import Descriptors
from unionfs.nodes import Directory, Node
from unionfs.tidying import tidying
from unionfs.upper.abilities import Abilities
from unionfs.upper.insisting import Insisting

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Finding(Insisting):
    """Finds nodes below `root`, a descriptor of the upper directory; keeps up to `capacity` descriptors of a kind."""

    def __init__(self, root: int, capacity: int, quiet: int, work: int) -> None:
        """`work`: a descriptor of the directory for temporaries. `quiet`: MS_ flags on access times that are this
        process's to keep, since the host's mount does not have them.
        """
        super().__init__()
        self.root = root
        self.work = work
        self._capacity = capacity
        self._held = 0
        self._directories = Descriptors(capacity)
        self._files = Descriptors(capacity)
        self._readable = Descriptors(min(capacity, 64))
        """Files that could not be opened for writing."""
        self.able = Abilities()
        self._noatime = os.O_NOATIME if quiet & mountflags.NOATIME else 0
        self._quiet = Descriptors(min(capacity, 64))
        """Files for readers that leave no trace in st_atime."""

    @contextmanager
    def insisting(self) -> Iterator[None]:
        self._directories.close()  # so that each is opened anew, on the way of which it is opened up
        with super().insisting():
            yield

    def directory(self, directory: Directory) -> int:
        """An O_PATH descriptor of a directory, borrowed until the next call."""
        fd = self._directories.get(directory.id)
        return fd if fd >= 0 else self._reopen(directory)

    def _reopen(self, directory: Directory) -> int:
        if directory.where is None:
            self.open_up(directory.fd)
            return self._removed(directory)
        missing: list[tuple[Directory, bytes]] = []
        walk, fd = directory, -1
        while walk.where is not None and fd < 0:
            missing.append((walk, walk.where[1]))
            walk = walk.where[0]
            fd = self._directories.get(walk.id)
        if fd < 0:
            fd = self.root if walk.fd < 0 else walk.fd
            self.open_up(fd)
        opened = -1
        for _, name in reversed(missing):
            below = os.open(name, _DIRECTORY, dir_fd=fd)
            if opened >= 0:
                os.close(opened)
            fd = opened = below
            self.open_up(fd)
        self._directories.put(directory.id, fd)
        return fd

    def _removed(self, node: Node) -> int:
        if node.fd < 0:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return node.fd

    def path(self, node: Node) -> tuple[bytes, bool]:
        """A path for calls that take no descriptor, and whether its last component is to be followed.

        It goes through /proc/self/fd, so it is short and survives renames above. Borrowed like `directory`.
        """
        if node.where is None and node.hidden is not None:
            return b"/proc/self/fd/%d/%s" % (self.work, node.hidden), False
        if node.where is None:
            return b"/proc/self/fd/%d" % self._removed(node), True
        if self.insists and isinstance(node, Directory):  # by a descriptor, which opens it up
            return b"/proc/self/fd/%d" % self.directory(node), True
        directory, name = node.where
        return b"/proc/self/fd/%d/%s" % (self.directory(directory), name), False

    def open_up_node(self, node: Node) -> None:
        """Open a node to its owner, until the end of a call that is made once more and tells nothing of its mode."""
        if not self.insists:
            return
        target, dir_fd, _ = self.place(node)
        if isinstance(target, int):
            self.open_up(target)
        elif dir_fd is not None:
            self.open_up_at(dir_fd, target)
        else:
            self.open_up(node.fd)

    def target(self, node: Node) -> tuple[int | bytes, bool]:
        """For calls that take either: a descriptor that is open anyway, or `path`.."""
        fd = self._files.get(node.id)
        return (fd, True) if fd >= 0 else self.path(node)

    def place(self, node: Node) -> tuple[int | bytes, int | None, bool]:
        """For calls that take a `dir_fd`: (descriptor or name, dir_fd, whether to follow).

        Spares the way through /proc/self/fd, which costs as much again as the call itself.
        """
        fd = self._files.get(node.id)
        if fd >= 0:
            return fd, None, True
        if node.where is None and node.hidden is not None:
            return node.hidden, self.work, False
        if node.where is None:
            return self.path(node)[0], None, True
        directory, name = node.where
        return name, self.directory(directory), False

    def stat(self, node: Node) -> os.stat_result:
        """fstat(2) of a node."""
        fd = node.fd
        if fd < 0:
            fd = (self._directories if isinstance(node, Directory) else self._files).get(node.id)
        if fd >= 0:
            return os.fstat(fd) if node.last is None else self._stat_removed(fd, node.last)
        if node.where is None and node.hidden is not None:
            return os.stat(node.hidden, dir_fd=self.work, follow_symlinks=False)
        directory, name = self._place(node)
        return os.stat(name, dir_fd=self.directory(directory), follow_symlinks=False)

    @staticmethod
    def _stat_removed(fd: int, last: os.stat_result) -> os.stat_result:
        try:
            return os.fstat(fd)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESTALE):
                return last
            raise

    def _place(self, node: Node) -> tuple[Directory, bytes]:
        if node.where is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return node.where

    def file(self, node: Node) -> int:
        """A descriptor for reading and writing a regular file, borrowed until the next call."""
        fd = self._files.get(node.id)
        if fd < 0 and node.last is not None and node.fd >= 0:
            return node.fd
        if fd < 0:
            path, follow = self.path(node)
            fd = _open_data(path, self._noatime | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
            self._files.put(node.id, fd)
        return fd

    def quiet(self, node: Node) -> int:
        """As `readable`, for who opened the file with O_NOATIME: its owner, as the kernel saw to (open(2))."""
        fd = self._quiet.get(node.id)
        if fd < 0:
            path, follow = self.path(node)
            try:
                fd = os.open(path, os.O_RDONLY | os.O_NOATIME | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
            except PermissionError:  # the owner on the host is another than the one who shows, or may not read it
                return self.readable(node)
            self._quiet.put(node.id, fd)
        return fd

    def readable(self, node: Node) -> int:
        """The same for reading alone: also where it may not be written, or the upper has become read-only."""
        fd = self._files.get(node.id)
        if fd < 0:
            fd = self._readable.get(node.id)
        return fd if fd >= 0 else self._open_readable(node)

    def _open_readable(self, node: Node) -> int:
        path, follow = self.path(node)
        flags = os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
        try:
            fd = _open_quietly(path, os.O_RDWR | flags | self._noatime)
            self._files.put(node.id, fd)
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES):
                raise
            try:
                fd = _open_quietly(path, os.O_RDONLY | flags | self._noatime)
            except PermissionError:
                return self.file(node)
            self._readable.put(node.id, fd)
        return fd

    def note_listing(self, directory: Directory) -> None:
        """Have the host move the access time of a directory that is read, which else is known without reading."""
        with os.scandir(self.path(directory)[0]) as entries:
            next(entries, None)

    def keep_file(self, node: Node, fd: int) -> None:
        """A descriptor for reading and writing of a node that was just made; owned from now on."""
        self._files.put(node.id, fd)

    def adopt_root(self, root: Directory) -> None:
        """The node that stands for the upper directory itself."""
        root.fd = self.root

    def pin(self, node: Node) -> None:
        """Keep a node reachable although its last known name is about to go."""
        if not self.able.keeps_removed:
            self._open_before_removal(node)
        fd = self._files.take(node.id)
        if fd < 0 and isinstance(node, Directory):
            fd = self._directories.take(node.id)
        if fd < 0:
            directory, name = self._place(node)
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.directory(directory))
        self.hold(node, fd)

    def hold(self, node: Node, fd: int) -> None:
        """Keep a node reachable by a descriptor, which is owned from now on; its last name is to go after this.

        Programs may have more files open without a name than this server may open: those that are too many get a link
        in the work directory instead. A directory can have none.
        """
        if self._held >= self._capacity and not isinstance(node, Directory) and self._hide(node, fd):
            os.close(fd)
            return
        node.fd = fd
        self._held += 1

    def _hide(self, node: Node, fd: int) -> bool:
        hidden = b"hidden.%d" % node.id
        try:
            os.link(b"/proc/self/fd/%d" % fd, hidden, dst_dir_fd=self.work, follow_symlinks=True)
        except OSError:  # no name is left, or there is no room for one more: then a descriptor it is, whatever it was
            return False
        node.hidden = hidden
        return True

    def _open_before_removal(self, node: Node) -> None:
        """A file that is open goes on also where others vanish with their names; of those there is what they were."""
        status = self.stat(node)
        if stat.S_ISREG(status.st_mode):
            self.file(node)
        fields = list(status)
        fields[stat.ST_NLINK] = 0
        node.last = os.stat_result(fields, {name: getattr(status, name) for name in _FURTHER})

    def release(self, node: Node) -> None:
        """Close what is kept for a node that nobody can name or use any more."""
        self._files.drop(node.id)
        self._readable.drop(node.id)
        self._quiet.drop(node.id)
        self._directories.drop(node.id)
        if node.fd >= 0:
            os.close(node.fd)
            node.fd = -1
            self._held -= 1
        if node.hidden is not None:
            with tidying("removing a hidden link"):
                os.unlink(node.hidden, dir_fd=self.work)
            node.hidden = None

    def give_up(self) -> None:
        """Close what is open only because it may be wanted again."""
        self._files.close()
        self._readable.close()
        self._quiet.close()
        self._directories.close()


_FURTHER = ("st_atime_ns", "st_mtime_ns", "st_ctime_ns", "st_blksize", "st_blocks", "st_rdev")
"""What a status has beside its ten fields."""


def _open_data(path: bytes, flags: int) -> int:
    """Open for reading and writing, also where an owner without capabilities took his own permission away.

    The kernel has checked the caller already (default_permissions); a server that is not root in its
    namespace still needs the mode bits on the host.
    """
    try:
        return _open_quietly(path, os.O_RDWR | flags)
    except PermissionError:
        mode = stat.S_IMODE(os.stat(path, follow_symlinks=not flags & os.O_NOFOLLOW).st_mode)
        if mode & 0o600 == 0o600:
            raise
        os.chmod(path, mode | 0o600)
        try:
            return _open_quietly(path, os.O_RDWR | flags)
        finally:
            os.chmod(path, mode)


def _open_quietly(path: bytes, flags: int) -> int:
    """open(2), and where O_NOATIME is among the flags and not allowed, as for files of other owners, without that."""
    try:
        return os.open(path, flags)
    except PermissionError as error:
        if error.errno != errno.EPERM or not flags & os.O_NOATIME:
            raise
        return os.open(path, flags & ~os.O_NOATIME)
