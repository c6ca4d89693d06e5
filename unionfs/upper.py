"""The writable side: directories and files on the host, addressed from open directories, never by whole path.

`Upper` knows where a node is and how to make, mark and remove things there, in the on-disk conventions of
the kernel's overlayfs. What is visible is the union's business. Beside the upper directory there is a work
directory on the same file system:

    work/     temporaries; swept when mounting, since nothing in it was published
    origins/  links.py: hard links to files of the upper that stand for a file of the tree
    whiteout  the device that all whiteouts are links to
    leaving/  leaving.py: a device that belongs where something is about to move away
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import stat
from collections.abc import Callable, Iterator

from unionfs import acl, override, syscalls, whiteout
from unionfs.descriptors import Descriptors, raise_limit
from unionfs.nodes import Directory, Node
from unionfs.override import Override
from unionfs.removing import remove_tree
from unionfs.tidying import tidying

ORIGIN = "user.ufs.origin"
"""On a file of the upper: the decimal st_ino of the file of the tree that it stands for."""

REDIRECT = "user.overlay.redirect"

LEAVING = b"leaving"
"""In the work directory; see `unionfs.leaving`."""

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_IN_MEMORY = (0x01021994, 0x858458F6)
"""tmpfs and ramfs by statfs(2), whose fsync(2) is noop_fsync() of fs/libfs.c."""

NO_XATTR = (errno.EOPNOTSUPP, errno.EPERM)
"""Marks cannot be stored here: no xattrs on this file system, or none on this type of file (xattr(7))."""

Make = Callable[[int, bytes], int]
"""Makes something with a name in a directory, a descriptor; returns one of what it made, to be kept, or -1."""


class Upper:
    """An upper directory with its work directory.

    Raises `OSError`: EBUSY where another mount uses the work directory, EXDEV where the two lie on
    different file systems, and whatever opening them gives.
    """

    def __init__(
        self, upperdir: bytes | str, workdir: bytes | str, overrides: bool = False, volatile: bool = False
    ) -> None:
        capacity = max(64, min(raise_limit() // 4, 8192))
        self._directories = Descriptors(capacity)
        self._files = Descriptors(capacity)
        self._readable = Descriptors(64)
        """Files that could not be opened for writing."""
        self._temporaries = itertools.count()
        self.root = os.open(upperdir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.durable = not volatile and syscalls.filesystem_type(self.root) not in _IN_MEMORY
        """Whether fsync(2) has anything to do here."""
        base = os.open(workdir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.device = os.fstat(self.root).st_dev
        if os.fstat(base).st_dev != self.device:
            raise OSError(errno.EXDEV, "the work directory is not on the upper directory's file system", workdir)
        self.base = base  # locked by it
        try:
            fcntl.flock(base, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OSError(errno.EBUSY, "the work directory is in use by another mount", workdir) from error
        self.work = _subdirectory(base, b"work")
        self.origins = _subdirectory(base, b"origins")
        for name in os.listdir(self.work):
            self.discard(os.fsencode(name))
        self.overrides = self._keeps_overrides(overrides)
        """Whether owners and modes are kept in xattrs; see `unionfs.override`."""
        self.whiteouts = whiteout.Writer(store=base)
        self._try_whiteouts()

    def _keeps_overrides(self, wanted: bool) -> bool:
        """By the mark on the root, which is set where that is wanted."""
        path = whiteout.path(self.root)
        status = os.fstat(self.root)
        marked = override.read(path, status, follow=True) is not None
        if wanted and not marked:
            override.write(path, override.of(status), follow=True)
        return wanted or marked

    def override_in(self, place: int, name: bytes, status: os.stat_result) -> Override | None:
        """What is kept in override_stat of something in the directory `place`."""
        return self._counts(override.read(whiteout.path(place, name), status), status) if self._may(status) else None

    def override_of(self, node: Node) -> Override | None:
        """The same of a node."""
        status = self.stat(node)
        path, follow = self.path(node)
        return self._counts(override.read(path, status, follow), status) if self._may(status) else None

    def _may(self, status: os.stat_result) -> bool:
        return self.overrides or (stat.S_ISREG(status.st_mode) and not status.st_size)

    def _counts(self, found: Override | None, status: os.stat_result) -> Override | None:
        """Without the mark on the root an override counts where the file stands in for something else."""
        if found is None or self.overrides or stat.S_IFMT(found.mode) != stat.S_IFMT(status.st_mode):
            return found
        return None

    def _try_whiteouts(self) -> None:
        """Find out which form of whiteout works here, before one is needed in the middle of something."""
        name = self.temporary()
        self.whiteouts.hide(self.work, name)
        self.discard(name if self.whiteouts.devices else whiteout.PREFIX + name)

    # Finding.

    def directory(self, directory: Directory) -> int:
        """An O_PATH descriptor of a directory, borrowed until the next call."""
        fd = self._directories.get(directory.id)
        return fd if fd >= 0 else self._reopen(directory)

    def _reopen(self, directory: Directory) -> int:
        if directory.where is None:
            return self._removed(directory)
        missing: list[tuple[Directory, bytes]] = []
        walk, fd = directory, -1
        while walk.where is not None and fd < 0:
            missing.append((walk, walk.where[1]))
            walk = walk.where[0]
            fd = self._directories.get(walk.id)
        if fd < 0:
            fd = self.root if walk.fd < 0 else walk.fd
        opened = -1
        for _, name in reversed(missing):
            below = os.open(name, _DIRECTORY, dir_fd=fd)
            if opened >= 0:
                os.close(opened)
            fd = opened = below
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
        if node.where is None:
            return b"/proc/self/fd/%d" % self._removed(node), True
        directory, name = node.where
        return b"/proc/self/fd/%d/%s" % (self.directory(directory), name), False

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
            return os.fstat(fd)
        directory, name = self._place(node)
        return os.stat(name, dir_fd=self.directory(directory), follow_symlinks=False)

    def _place(self, node: Node) -> tuple[Directory, bytes]:
        if node.where is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return node.where

    def file(self, node: Node) -> int:
        """A descriptor for reading and writing a regular file, borrowed until the next call."""
        fd = self._files.get(node.id)
        if fd < 0:
            path, follow = self.path(node)
            fd = _open_data(path, os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
            self._files.put(node.id, fd)
        return fd

    def readable(self, node: Node) -> int:
        """The same for reading alone, which goes on where the upper has become read-only."""
        fd = self._files.get(node.id)
        if fd >= 0:
            return fd
        try:
            return self.file(node)
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
        fd = self._readable.get(node.id)
        if fd < 0:
            path, follow = self.path(node)
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
            self._readable.put(node.id, fd)
        return fd

    def keep_file(self, node: Node, fd: int) -> None:
        """A descriptor for reading and writing of a node that was just made; owned from now on."""
        self._files.put(node.id, fd)

    def adopt_root(self, root: Directory) -> None:
        """The node that stands for the upper directory itself."""
        root.fd = self.root

    def pin(self, node: Node) -> None:
        """Keep a node reachable although its last known name is about to go."""
        fd = self._files.take(node.id)
        if fd < 0 and isinstance(node, Directory):
            fd = self._directories.take(node.id)
        if fd < 0:
            directory, name = self._place(node)
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.directory(directory))
        node.fd = fd

    def release(self, node: Node) -> None:
        """Close what is kept for a node that nobody can name or use any more."""
        self._files.drop(node.id)
        self._readable.drop(node.id)
        self._directories.drop(node.id)
        if node.fd >= 0:
            os.close(node.fd)
            node.fd = -1

    # Making.

    def temporary(self) -> bytes:
        """A fresh name in the work directory; nothing in there survives a mount, so a counter is enough."""
        return b"%x" % next(self._temporaries)

    def publish(self, temporary: bytes, directory: Directory, name: bytes, over_mark: bool) -> None:
        """Move a finished temporary to its place; `over_mark`: a whiteout is there, and goes."""
        place = self.directory(directory)
        if over_mark and whiteout.exists(place, name):
            # A directory cannot be renamed over a device, so the two change places in one step.
            syscalls.renameat2(self.work, temporary, place, name, syscalls.RENAME_EXCHANGE)
            self.discard(temporary)
            return
        syscalls.renameat2(self.work, temporary, place, name, syscalls.RENAME_NOREPLACE)
        if over_mark:
            self.reveal_file(place, name)

    def reveal_file(self, place: int, name: bytes) -> None:
        """Remove ``.wh.NAME`` where NAME has taken its place and counts already."""
        with tidying("removing the whiteout of a new name"):
            self.whiteouts.reveal_file(place, name)

    def make_below_acl(self, default: bytes, name: bytes, make: Make) -> int:
        """Call `make` for a temporary where it inherits a default ACL, which the work directory does not have."""
        nest = self.temporary()
        os.mkdir(nest, 0o700, dir_fd=self.work)
        try:
            fd = os.open(nest, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.work)
            try:
                os.setxattr(fd, acl.DEFAULT, default)
                made = make(fd, name)
                try:
                    os.rename(name, name, src_dir_fd=fd, dst_dir_fd=self.work)
                except BaseException:
                    if made >= 0:
                        os.close(made)
                    raise
                return made
            finally:
                os.close(fd)
        finally:
            self.discard(nest)

    def discard(self, temporary: bytes) -> None:
        """Remove something from the work directory, whatever it is. Nothing there needs an order."""
        with tidying("removing a temporary"):
            remove_tree(self.work, temporary)

    def discard_if_there(self, temporary: bytes) -> None:
        """The same on the way out of a failure, when it may not have been made or have been published."""
        if whiteout.exists(self.work, temporary):
            self.discard(temporary)

    @staticmethod
    def remove(dir_fd: int, name: bytes) -> None:
        """Take back something that was only just made and that nobody has seen."""
        remove_tree(dir_fd, name)

    def remove_directory(self, directory: Directory, name: bytes) -> None:
        """Remove a directory that shows no entries. It may hold marks: then out of sight first."""
        try:
            os.rmdir(name, dir_fd=self.directory(directory))
            return
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
        temporary = self.temporary()
        os.rename(name, temporary, src_dir_fd=self.directory(directory), dst_dir_fd=self.work)
        self.discard(temporary)

    def replace_by_whiteout(self, directory: Directory, name: bytes) -> None:
        """The same for what is no directory, which a rename can replace."""
        place = self.directory(directory)
        if not self.whiteouts.devices:
            with self._hidden_after(place, name):
                os.unlink(name, dir_fd=place)
            return
        temporary = self.temporary()
        self.whiteouts.hide(self.work, temporary)
        os.rename(temporary, name, src_dir_fd=self.work, dst_dir_fd=place)

    def rename_leaving(self, old: int, name: bytes, new: int, newname: bytes, leave: bool) -> None:
        """Rename within the upper, leaving a whiteout behind if asked to."""
        if leave and self.whiteouts.devices:
            syscalls.renameat2(old, name, new, newname, syscalls.RENAME_WHITEOUT)
            return
        with self._hidden_after(old, name) if leave else contextlib.nullcontext():
            os.rename(name, newname, src_dir_fd=old, dst_dir_fd=new)

    @contextlib.contextmanager
    def _hidden_after(self, place: int, name: bytes) -> Iterator[None]:
        """Inside, a name goes, whose ``.wh.NAME`` is written before and counts from then on."""
        self.whiteouts.hide(place, name)
        try:
            yield
        except BaseException:
            self.reveal_file(place, name)
            raise

    def exchange_for_whiteout(self, directory: Directory, name: bytes) -> None:
        """Put a whiteout where something of the upper is, in one step, and remove that."""
        place = self.directory(directory)
        temporary = self.temporary()
        if self.whiteouts.devices:
            self.whiteouts.hide(self.work, temporary)
            syscalls.renameat2(self.work, temporary, place, name, syscalls.RENAME_EXCHANGE)
        else:
            with self._hidden_after(place, name):
                os.rename(name, temporary, src_dir_fd=place, dst_dir_fd=self.work)
        self.discard(temporary)

    # Marks.

    def get_mark(self, node: Node, mark: str | bytes) -> bytes | None:
        """An xattr of a node, None where it has none or may have none."""
        path, follow = self.path(node)
        try:
            return os.getxattr(path, mark, follow_symlinks=follow)
        except OSError as error:
            if error.errno == errno.ENODATA or error.errno in NO_XATTR:
                return None
            raise

    def set_mark(self, node: Node, mark: str, value: bytes) -> None:
        """Set an xattr; raises where the file system has none."""
        path, follow = self.path(node)
        os.setxattr(path, mark, value, follow_symlinks=follow)

    def close(self) -> None:
        """Release every descriptor and the lock."""
        self._files.close()
        self._readable.close()
        self._directories.close()
        for fd in (self.root, self.work, self.origins, self.base):
            os.close(fd)


def _subdirectory(base: int, name: bytes) -> int:
    with contextlib.suppress(FileExistsError):  # from an earlier mount
        os.mkdir(name, 0o700, dir_fd=base)
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=base)


def _open_data(path: bytes, flags: int) -> int:
    """Open for reading and writing, also where an owner without capabilities took his own permission away.

    The kernel has checked the caller already (default_permissions); a server that is not root in its
    namespace still needs the mode bits on the host.
    """
    try:
        return os.open(path, os.O_RDWR | flags)
    except PermissionError:
        mode = stat.S_IMODE(os.stat(path, follow_symlinks=not flags & os.O_NOFOLLOW).st_mode)
        if mode & 0o600 == 0o600:
            raise
        os.chmod(path, mode | 0o600)
        try:
            return os.open(path, os.O_RDWR | flags)
        finally:
            os.chmod(path, mode)
