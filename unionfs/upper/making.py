"""How things come into the upper and go from it: as a temporary first, out of sight, and then by one rename."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
from collections.abc import Callable, Iterator

from unionfs import acl, syscalls, whiteout
from unionfs.nodes import Directory
from unionfs.tidying import tidying
from unionfs.upper.finding import Finding
from unionfs.upper.removing import remove_tree

Make = Callable[[int, bytes], int]
"""Makes something with a name in a directory, a descriptor; returns one of what it made, to be kept, or -1."""


class Making(Finding):
    """Makes, publishes and removes. `work` is a descriptor of the directory for temporaries."""

    def __init__(self, root: int, capacity: int, quiet: int, work: int, store: int) -> None:
        """`store`: see `whiteout.Writer`."""
        super().__init__(root, capacity, quiet, work)
        self._temporaries = itertools.count()
        self.whiteouts = whiteout.Writer(store=store)

    def temporary(self) -> bytes:
        """A fresh name in the work directory; nothing in there survives a mount, so a counter is enough."""
        return b"%x" % next(self._temporaries)

    def may_give_to(self, owner: tuple[int, int]) -> bool:
        """Whether this server may chown(2) to a (uid, gid), tried with a temporary."""
        if owner == (os.geteuid(), os.getegid()):
            return True
        name = self.temporary()
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self.work))
        try:
            os.chown(name, *owner, dir_fd=self.work)
        except OSError as error:
            # May not give files away; or an id that this user namespace does not map.
            if error.errno not in (errno.EPERM, errno.EINVAL):
                raise
            return False
        finally:
            self.discard(name)
        return True

    def move(self, old: int, name: bytes, new: int, newname: bytes, flags: int = 0) -> None:
        """renameat2(2) between directories, the work directory among them.

        Where the file system has no RENAME_NOREPLACE, a look does the same: nobody else makes names there.
        """
        if flags & syscalls.RENAME_NOREPLACE and not self.able.noreplace:
            if whiteout.exists(new, newname):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), newname)
            flags &= ~syscalls.RENAME_NOREPLACE
        if not self.insists:
            syscalls.renameat2(old, name, new, newname, flags)
            return
        exchanged = [(new, newname)] if flags & syscalls.RENAME_EXCHANGE else []
        with self.opened_to_move((old, name), *exchanged):
            syscalls.renameat2(old, name, new, newname, flags)

    def publish(self, temporary: bytes, directory: Directory, name: bytes, over_mark: bool) -> None:
        """Move a finished temporary to its place; `over_mark`: a whiteout is there, and goes."""
        place = self.directory(directory)
        if over_mark and whiteout.exists(place, name):
            if self.able.exchange:
                # A directory cannot be renamed over a device, so the two change places in one step.
                self.move(self.work, temporary, place, name, syscalls.RENAME_EXCHANGE)
                self.discard(temporary)
                return
            if not stat.S_ISDIR(os.stat(temporary, dir_fd=self.work, follow_symlinks=False).st_mode):
                self.move(self.work, temporary, place, name)
                self.reveal_file(place, name)
                return
            self.turn_into_file(place, name)
        self.move(self.work, temporary, place, name, syscalls.RENAME_NOREPLACE)
        if over_mark:
            self.reveal_file(place, name)

    def turn_into_file(self, place: int, name: bytes) -> None:
        """Put ``.wh.NAME`` in the place of a whiteout device, so that the name is free on disk, too."""
        if len(name) <= whiteout.LONGEST:
            self.whiteouts.hide(place, name)  # in that form, or else there were a way to exchange the two
        os.unlink(name, dir_fd=place)

    def unlink(self, place: int, name: bytes) -> None:
        """Remove a name of the upper.

        Where removed files do not last, what is open still gets another name (``.fuse_hidden``, ``.nfs``), which nobody
        shall see: so out of sight first.
        """
        if self.able.keeps_removed:
            os.unlink(name, dir_fd=place)
            return
        temporary = self.temporary()
        self.move(place, name, self.work, temporary)
        self.discard(temporary)

    @contextlib.contextmanager
    def keeping_times(self, directory: Directory) -> Iterator[None]:
        """Inside, a name comes into a directory that showed there before, so the directory's times stay."""
        before = os.stat(b"/proc/self/fd/%d" % self.directory(directory))
        yield
        with tidying("setting the times of a directory back"):
            where = b"/proc/self/fd/%d" % self.directory(directory)
            os.utime(where, ns=(before.st_atime_ns, before.st_mtime_ns))

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
            try:
                remove_tree(self.work, temporary)
            except OSError as error:
                # What is open still keeps its directory: `unlink`. The next mount removes both.
                if self.able.keeps_removed or error.errno not in (errno.ENOTEMPTY, errno.EBUSY):
                    raise

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
        self.move(self.directory(directory), name, self.work, temporary)
        self.discard(temporary)

    def replace_by_whiteout(self, directory: Directory, name: bytes) -> None:
        """The same for what is no directory, which a rename can replace."""
        place = self.directory(directory)
        if not self.whiteouts.devices:
            with self._hidden_after(place, name):
                self.unlink(place, name)
            return
        temporary = self.temporary()
        self.whiteouts.hide(self.work, temporary)
        self.move(self.work, temporary, place, name)

    def rename_leaving(self, old: int, name: bytes, new: int, newname: bytes, leave: bool) -> None:
        """Rename within the upper, leaving a whiteout behind if asked to."""
        if leave and self.whiteouts.devices:
            self.move(old, name, new, newname, syscalls.RENAME_WHITEOUT)
            return
        with self._hidden_after(old, name) if leave else contextlib.nullcontext():
            self.move(old, name, new, newname)

    @contextlib.contextmanager
    def _hidden_after(self, place: int, name: bytes) -> Iterator[None]:
        """Inside, a name goes, whose ``.wh.NAME`` is written before and counts from then on.

        Where the name is too long for that, a device takes its place afterwards; for a moment the tree shows through.
        """
        if len(name) > whiteout.LONGEST:
            temporary = self.temporary()
            self.whiteouts.make_device(self.work, temporary)
            try:
                yield
                self.move(self.work, temporary, place, name)
            finally:
                self.discard_if_there(temporary)
            return
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
            self.move(self.work, temporary, place, name, syscalls.RENAME_EXCHANGE)
        else:
            with self._hidden_after(place, name):
                self.move(place, name, self.work, temporary)
        self.discard(temporary)
