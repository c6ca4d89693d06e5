"""The writable side: directories and files on the host, addressed from open directories, never by whole path.

`Upper` knows where a node is (`finding`), how to make and remove things there (`making`), and their marks, in the
on-disk conventions of the kernel's overlayfs. What is visible is the union's business. Beside the upper directory there
is a work directory on the same file system:

    work/     temporaries; swept when mounting, since nothing in it was published
    origins/  links.py: hard links to files of the upper that stand for a file of the tree
    whiteout  the device that all whiteouts are links to
    mounted   locking.py: where it is mounted
    leaving/  leaving.py: a device that belongs where something is about to move away
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from unionfs import override, syscalls, whiteout
from unionfs.descriptors import share
from unionfs.nodes import Directory, Node
from unionfs.override import Override
from unionfs.upper.abilities import Abilities, probe
from unionfs.upper.access import open_both
from unionfs.upper.locking import lock, note_mount_point
from unionfs.upper.making import Make, Making

__all__ = ["LEAVING", "NO_XATTR", "ORIGIN", "REDIRECT", "Make", "Upper"]

ORIGIN = "user.ufs.origin"
"""On a file of the upper: the decimal st_ino of the file of the tree that it stands for."""

REDIRECT = "user.overlay.redirect"

LEAVING = b"leaving"
"""In the work directory; see `unionfs.upper.leaving`."""

_IN_MEMORY = (0x01021994, 0x858458F6)
"""tmpfs and ramfs by statfs(2), whose fsync(2) is noop_fsync() of fs/libfs.c."""

NO_XATTR = (errno.EOPNOTSUPP, errno.EPERM)
"""Marks cannot be stored here: no xattrs on this file system, or none on this type of file (xattr(7))."""


class Upper(Making):
    """An upper directory with its work directory.

    Raises `OSError`: EBUSY where another mount uses one of them, EXDEV where the two lie on
    different file systems, and whatever opening them gives.
    """

    def __init__(
        self,
        upperdir: bytes | str,
        workdir: bytes | str,
        overrides: bool = False,
        volatile: bool = False,
        access: int = 0,
    ) -> None:
        """`access`: see `unionfs.features.Features`."""
        root, self.base, self._tree = open_both(upperdir, workdir, access)
        _lock(self.base, workdir, root, upperdir)
        self.device = os.fstat(root).st_dev
        self.durable = not volatile and syscalls.filesystem_type(root) not in _IN_MEMORY
        """Whether fsync(2) has anything to do here."""
        quiet = access if self._tree < 0 else 0
        super().__init__(root, share(), quiet, work=_subdirectory(self.base, b"work"), store=self.base)
        self.origins = _subdirectory(self.base, b"origins")
        for name in os.listdir(self.work):
            self.discard(os.fsencode(name))
        self.able = _probed(self, workdir)
        self.overrides = self._keeps_overrides(overrides)
        """Whether owners and modes are kept in xattrs; see `unionfs.override`."""
        self._some_overrides = override.SOME in whiteout.xattr_names(root)
        self._try_whiteouts(upperdir)

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

    def note_override(self) -> None:
        """Something in the upper is to have an override: whoever reads the upper then has to look for them.

        Raises EOPNOTSUPP where there are no user xattrs.
        """
        if not self.overrides and not self._some_overrides:
            os.setxattr(self.root, override.SOME, b"y")
            self._some_overrides = True

    def _may(self, status: os.stat_result) -> bool:
        return self.overrides or self._some_overrides or (stat.S_ISREG(status.st_mode) and not status.st_size)

    def _counts(self, found: Override | None, status: os.stat_result) -> Override | None:
        """Without a mark on the root an override counts where the file stands in for something else."""
        if found is None or self.overrides or self._some_overrides:
            return found
        return found if stat.S_IFMT(found.mode) != stat.S_IFMT(status.st_mode) else None

    def _try_whiteouts(self, upperdir: bytes | str) -> None:
        """Find out which form of whiteout works here, before one is needed in the middle of something."""
        if not (self.able.exchange and self.able.leaving):
            self.whiteouts.devices = False  # the steps that devices need cannot be made
        if not (self._whiteout_stays() or self._whiteout_stays()):  # as a device, and else as a file
            message = "what it lies on takes whiteouts for its own, as fuse-overlayfs does; name a directory on a disk"
            raise OSError(errno.EOPNOTSUPP, message, upperdir)

    def _whiteout_stays(self) -> bool:
        """Whether a whiteout is there when it was made; where it is not, they will be files."""
        name = self.temporary()
        try:
            self.whiteouts.hide(self.work, name)
        except OSError as error:
            if error.errno == errno.EINVAL:  # a name of an overlay's own
                return False
            raise
        mark = name if self.whiteouts.devices else whiteout.PREFIX + name
        if not whiteout.exists(self.work, mark):
            self.whiteouts.devices = False
            return False
        self.discard(mark)
        return True

    def get_mark(self, directory: Directory, mark: str | bytes) -> bytes | None:
        """An xattr of a directory, None where it has none or may have none."""
        try:
            return os.getxattr(whiteout.path(self.directory(directory)), mark)
        except OSError as error:
            if error.errno == errno.ENODATA or error.errno in NO_XATTR:
                return None
            raise

    def set_mark(self, directory: Directory, mark: str, value: bytes) -> None:
        """Set an xattr of a directory; raises where the file system has none."""
        os.setxattr(whiteout.path(self.directory(directory)), mark, value)

    def note_mount_point(self, target: str) -> None:
        """Say where this gets mounted, to whoever wants these directories meanwhile."""
        note_mount_point(self.base, target)

    def close(self) -> None:
        """Release every descriptor and the lock."""
        self.give_up()
        for fd in (self.root, self.work, self.origins, self.base, self._tree):
            if fd >= 0:
                os.close(fd)


def _lock(base: int, workdir: bytes | str, root: int, upperdir: bytes | str) -> None:
    """Lock the work and the upper directory."""
    if os.fstat(base).st_dev != os.fstat(root).st_dev:
        raise OSError(errno.EXDEV, f"the work directory is not on the file system of the upper; {_BESIDE}", workdir)
    lock(base, "work directory", workdir, work=base)
    lock(root, "upper directory", upperdir, work=-1)


def _probed(upper: Upper, workdir: bytes | str) -> Abilities:
    try:
        return probe(upper.root, upper.work, upper.temporary)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP and error.filename is None:
            message = f"{error.strerror}, as on another overlay; name an upper and a work directory on a disk"
            raise OSError(errno.EOPNOTSUPP, message, workdir) from error
        if error.errno != errno.EXDEV:
            raise
        raise OSError(
            errno.EXDEV, f"nothing can be moved from the work directory to the upper directory; {_BESIDE}", workdir
        ) from error


_BESIDE = "name one that is on the same mount of the same file system, best beside the upper directory"


def _subdirectory(base: int, name: bytes) -> int:
    with contextlib.suppress(FileExistsError):  # from an earlier mount
        os.mkdir(name, 0o700, dir_fd=base)
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=base)
