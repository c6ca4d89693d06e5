"""What an entry of a layer directory says, and how to write it: whiteouts, opaque marks, redirects.

The one resolver of that question for both sides of a union: `unionfs.live.directories` asks it about lower layers,
`unionfs.upper` asks it and writes by it. Forms that are read:

- whiteout: character device 0:0; ``.wh.NAME`` beside or instead of NAME (OCI image spec, layer.md); in a
  directory marked ``overlay.opaque=x`` a regular file of size zero with the xattr ``overlay.whiteout``
  (fs/overlayfs/util.c, ovl_path_check_xwhiteout_xattr);
- opaque: ``.wh..wh..opq`` in the directory; ``overlay.opaque=y`` or ``user.fuseoverlayfs.opaque=y`` on it;
- redirect: ``overlay.redirect`` (fs/overlayfs/namei.c, ovl_check_redirect).

Names on disk that start with ``.wh.`` are never shown. A program may make one all the same, so such a name has another
form on disk: ``.ufs.wh.x`` is shown as ``.wh.x``, and one more ``.ufs`` stands for itself (`stored`, `shown`). All of
this package, trees included, takes names in their form on disk; only who talks to the kernel, or prints, turns them.

``overlay.*`` stands for ``trusted.overlay.*`` and
``user.overlay.*`` alike. Directories are addressed by descriptors, which may be O_PATH: xattrs go through
/proc/self/fd, because the f*xattr calls refuse O_PATH.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

PREFIX: Final = b".wh."
LONGEST: Final = 255 - len(PREFIX)
"""Bytes of a name that ``.wh.`` can precede."""
OPAQUE_NAME: Final = b".wh..wh..opq"
SHARED: Final = b"whiteout"
"""Name of the device that a `Writer` links to."""

_OPAQUE: Final = ("trusted.overlay.opaque", "user.overlay.opaque", "user.fuseoverlayfs.opaque")
_REDIRECT: Final = ("trusted.overlay.redirect", "user.overlay.redirect")
_WHITEOUT: Final = ("trusted.overlay.whiteout", "user.overlay.whiteout")
DT_UNKNOWN: Final = 0
DT_DIR: Final = stat.S_IFDIR >> 12
DT_REG: Final = stat.S_IFREG >> 12
DT_LNK: Final = stat.S_IFLNK >> 12


_ESCAPE: Final = b".ufs"
_ESCAPABLE: Final = (PREFIX, _ESCAPE + b".")


def stored(name: bytes) -> bytes:
    """The form on disk of a name that shows. It may be 4 bytes longer: then 251 is the most that a name may have."""
    return _ESCAPE + name if name.startswith(_ESCAPABLE) and _is_escapable(name) else name


def shown(name: bytes) -> bytes:
    """The name that shows for one on disk, which is no whiteout."""
    if not name.startswith(_ESCAPE) or not _is_escapable(name):
        return name
    return name[len(_ESCAPE) :]


def _is_escapable(name: bytes) -> bool:
    while name.startswith(_ESCAPE):
        name = name[len(_ESCAPE) :]
    return name.startswith(PREFIX)


class Whiteout:
    """The type of `WHITEOUT`, the answer of `probe` for a name that is hidden from here down."""

    __slots__ = ()


WHITEOUT: Final = Whiteout()


class Marks(NamedTuple):
    """What the xattrs of a layer's directory say."""

    opaque: bool = False
    """Nothing of the layers below shows through."""
    xwhiteouts: bool = False
    """Zero-size regular files in it may be whiteouts (``overlay.opaque=x``)."""
    redirect: bytes | None = None
    """Where the layers below have this directory: absolute from their root, or a sibling's name."""


class Listing(NamedTuple):
    """One layer's directory, read once."""

    names: dict[bytes, int]
    """Name to d_type (S_IFMT >> 12; DT_UNKNOWN where it cannot be told), in the order of the directory, without marks
    and whiteouts."""
    whiteouts: set[bytes]
    """Names that the layers below must not show. A name may be in both: a replaced directory."""
    opaque: bool
    """Whether ``.wh..wh..opq`` is there. The xattrs of the directory are `marks`' business."""


def is_whiteout(status: os.stat_result) -> bool:
    """Whether this is the whiteout device (WHITEOUT_DEV, include/linux/fs.h)."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def path(dirfd: int, name: bytes | None = None) -> bytes:
    """A path for calls that know no dir_fd: the directory itself, or `name` in it (then do not follow)."""
    return b"/proc/self/fd/%d" % dirfd if name is None else b"/proc/self/fd/%d/%s" % (dirfd, name)


def marks(dirfd: int) -> Marks:
    """What the xattrs of a layer's directory say; one listxattr where it has none of ours."""
    where = path(dirfd)
    names = xattr_names(dirfd)
    if not names:
        return _UNMARKED
    opaque = [_xattr(where, name) for name in _OPAQUE if name in names]
    redirect = next((_xattr(where, name) for name in _REDIRECT if name in names), None)
    return Marks(b"y" in opaque, b"x" in opaque, redirect)


_UNMARKED: Final = Marks()


def xattr_names(dirfd: int) -> list[str]:
    """The names of a directory's xattrs, none where there are none to be seen."""
    try:
        return os.listxattr(path(dirfd))
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.EACCES):  # no xattrs here; a mark unseen by us is no mark
            return []
        raise


def is_opaque(dirfd: int) -> bool:
    """Whether the directory hides all that the layers below have in it."""
    return marks(dirfd).opaque or has_opaque_name(dirfd)


def has_opaque_name(dirfd: int) -> bool:
    """Whether the directory holds ``.wh..wh..opq``."""
    return exists(dirfd, OPAQUE_NAME)


def probe(dirfd: int, name: bytes, *, aufs: bool = True, xwhiteouts: bool = False) -> os.stat_result | Whiteout | None:
    """What a layer's directory says of one name: its status, WHITEOUT, or None where it says nothing.

    `aufs` False saves the second stat, for ``.wh.NAME``, where the caller knows that there is none or that
    nothing lies below. `xwhiteouts` is `Marks.xwhiteouts` of the directory.
    Raises OSError for all but ENOENT, and ENAMETOOLONG too counts as nothing: layers may differ in it.
    """
    try:
        status = os.stat(name, dir_fd=dirfd, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENAMETOOLONG):
            raise
        return WHITEOUT if aufs and is_marked(dirfd, name) else None
    if is_whiteout(status) or (xwhiteouts and is_xwhiteout(dirfd, name, status)):
        return WHITEOUT
    return status


def is_marked(dirfd: int, name: bytes) -> bool:
    """Whether ``.wh.NAME`` is in the directory: NAME, where the same layer has it, hides those below."""
    return len(name) <= LONGEST and exists(dirfd, PREFIX + name)


def is_xwhiteout(dirfd: int, name: bytes, status: os.stat_result) -> bool:
    """Whether an entry of a directory marked ``overlay.opaque=x`` is a whiteout."""
    if status.st_size or not stat.S_ISREG(status.st_mode):
        return False
    names = os.listxattr(path(dirfd, name), follow_symlinks=False)
    return any(mark in names for mark in _WHITEOUT)


def scan(dirfd: int, *, xwhiteouts: bool = False, quiet: bool = False) -> Listing:
    """Read a layer's directory. Only what is no directory, file or symlink costs a stat.

    `xwhiteouts` is `Marks.xwhiteouts` of the directory. `quiet`: leave no trace in st_atime, where that is allowed.
    Raises EACCES where it may not be read.
    """
    if quiet and (own := _opened_quietly(dirfd)) >= 0:
        try:
            with os.scandir(own) as entries:
                return _sorted(entries, dirfd, xwhiteouts, of_str=True)
        finally:
            os.close(own)
    with os.scandir(path(dirfd)) as entries:
        return _sorted(entries, dirfd, xwhiteouts)


def _opened_quietly(dirfd: int) -> int:
    try:
        return os.open(path(dirfd), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOATIME)
    except PermissionError:  # for the owner and CAP_FOWNER alone (open(2))
        return -1


def _sorted(entries: Iterator[os.DirEntry[Any]], dirfd: int, xwhiteouts: bool, of_str: bool = False) -> Listing:
    names: dict[bytes, int] = {}
    hidden: set[bytes] = set()
    opaque = False
    for entry in entries:
        name = os.fsencode(entry.name) if of_str else entry.name
        if name.startswith(PREFIX):
            if name == OPAQUE_NAME:
                opaque = True
            else:
                hidden.add(name[len(PREFIX) :])
            continue
        type_ = _type(entry, name, dirfd, xwhiteouts)
        if type_ == _GONE:
            continue
        if type_ == _HIDES:
            hidden.add(name)
        else:
            names[name] = type_
    return Listing(names, hidden, opaque)


_GONE: Final = -1
_HIDES: Final = -2


def _type(entry: os.DirEntry[Any], name: bytes, dirfd: int, xwhiteouts: bool) -> int:
    """The d_type of an entry, _HIDES for a whiteout, _GONE for what vanished meanwhile.

    DT_UNKNOWN where it cannot be looked at, for whatever reason: a lookup of it will say why. The others go on.
    """
    try:
        if entry.is_symlink():
            return DT_LNK
        if entry.is_dir(follow_symlinks=False):
            return DT_DIR
        if not xwhiteouts and entry.is_file(follow_symlinks=False):
            return DT_REG
        answer = probe(dirfd, name, aufs=False, xwhiteouts=xwhiteouts)
    except OSError:
        return DT_UNKNOWN
    if answer is None:
        return _GONE
    return _HIDES if isinstance(answer, Whiteout) else stat.S_IFMT(answer.st_mode) >> 12


class Writer:
    """Writes whiteouts and opaque marks into an upper directory, in the form that its file system allows.

    Whiteouts are devices 0:0 (no privilege needed since Linux 5.8); where those are refused, or where the
    environment has FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT, ``.wh.NAME`` files. What was refused once is not
    tried again. Opaque marks are ``user.overlay.opaque=y``, or ``.wh..wh..opq`` where xattrs are refused.

    `store` is a directory of ours on the same file system: all whiteouts are links to one device in it, as the kernel's
    overlayfs does it (ovl_whiteout() of fs/overlayfs/dir.c), which saves making an inode for each.
    """

    def __init__(self, devices: bool | None = None, store: int = -1) -> None:
        self._store = store
        if devices is None:
            devices = "FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT" not in os.environ
        self.devices = devices
        """Whether whiteouts are written as devices; turns False when the file system refuses one."""

    def hide(self, dirfd: int, name: bytes) -> None:
        """Write a whiteout for `name`, which must not exist in the directory (EEXIST as a device)."""
        if not self.devices and len(name) > LONGEST:
            self.make_device(dirfd, name)
            return
        if self.devices:
            try:
                self.make_device(dirfd, name)
            except OSError as error:
                # EPERM: before Linux 5.8, nodev-like policies. EINVAL, ENOTSUP: file systems without devices.
                if error.errno not in (errno.EPERM, errno.EINVAL, errno.ENOTSUP):
                    raise
                self.devices = False
            else:
                return
        _touch(dirfd, PREFIX + name)

    def make_device(self, dirfd: int, name: bytes) -> None:
        """A whiteout as a device. Raises what making one does where the file system has none."""
        if self._store < 0:
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=dirfd)
            return
        try:
            os.link(SHARED, name, src_dir_fd=self._store, dst_dir_fd=dirfd, follow_symlinks=False)
        except OSError as error:
            # ENOENT: the first one. EMLINK: it has as many links as the file system allows (65,000 on ext4).
            if error.errno not in (errno.ENOENT, errno.EMLINK):
                raise
            _remove(self._store, SHARED)
            os.mknod(SHARED, stat.S_IFCHR, 0, dir_fd=self._store)
            os.link(SHARED, name, src_dir_fd=self._store, dst_dir_fd=dirfd, follow_symlinks=False)

    @staticmethod
    def reveal(dirfd: int, name: bytes) -> bool:
        """Remove the whiteout of `name`, of whichever form; says whether there was one."""
        was = isinstance(probe(dirfd, name, aufs=False, xwhiteouts=True), Whiteout)
        if was:
            os.unlink(name, dir_fd=dirfd)
        return Writer.reveal_file(dirfd, name) or was

    @staticmethod
    def reveal_file(dirfd: int, name: bytes) -> bool:
        """Remove ``.wh.NAME`` alone; says whether it was there."""
        return _remove(dirfd, PREFIX + name)

    def mark_opaque(self, dirfd: int) -> None:
        """Hide all that the layers below have in this directory."""
        if not self._set_opaque(dirfd):
            _touch(dirfd, OPAQUE_NAME)

    def mark_opaque_outside(self, dirfd: int, above: int, name: bytes) -> None:
        """The same without a file in it, whose name in the directory `above` is given."""
        if not self._set_opaque(dirfd):
            _touch(above, PREFIX + name)

    @staticmethod
    def _set_opaque(dirfd: int) -> bool:
        try:
            os.setxattr(path(dirfd), "user.overlay.opaque", b"y")
        except OSError as error:
            # ENOTSUP: no user xattrs here. EPERM: not on this kind of inode. ENOSPC: no room in the inode.
            if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.ENOSPC):
                raise
            return False
        return True


def _xattr(where: bytes, name: str) -> bytes | None:
    try:
        return os.getxattr(where, name)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EACCES):  # gone since it was listed; not for us to read
            return None
        raise


def exists(dirfd: int, name: bytes) -> bool:
    """Whether a directory has a name on disk, be it a mark."""
    try:
        os.stat(name, dir_fd=dirfd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _touch(dirfd: int, name: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(name, flags, 0o600, dir_fd=dirfd))


def _remove(dirfd: int, name: bytes) -> bool:
    try:
        os.unlink(name, dir_fd=dirfd)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # ".wh." and a name of more than 251 bytes: never written
            return False
        raise
    return True
