"""System calls that Python's os module does not have; the only ctypes of this package."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import struct
from collections.abc import Callable

_libc = ctypes.CDLL(None, use_errno=True)

AT_FDCWD = -100
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
RENAME_WHITEOUT = 4
FALLOC_FL_KEEP_SIZE = 1
FALLOC_FL_PUNCH_HOLE = 2
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_BIND = 4096
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MNT_DETACH = 2
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
_MOUNT_ATTR_ATIME = 0x70
_OPEN_TREE, _MOUNT_SETATTR = 428, 442  # on every machine (include/uapi/asm-generic/unistd.h)
_OPEN_TREE_CLONE = 1
_AT_EMPTY_PATH = 0x1000
FICLONE = 0x40049409
FS_IOC_GETFLAGS = 0x80086601

_libc.renameat2.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]

_read = ctypes.CDLL(
    None, use_errno=True
).read  # of a library object of its own: no argtypes, the arguments are made once
_read.restype = ctypes.c_ssize_t


def _check(result: int, what: bytes | None = None) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)


def renameat2(old_dir: int, old: bytes, new_dir: int, new: bytes, flags: int) -> None:
    """renameat2(2); RENAME_WHITEOUT leaves a device 0:0 behind and needs no privilege since Linux 5.8."""
    _check(_libc.renameat2(old_dir, old, new_dir, new, flags), old)


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2) with its modes, which os.posix_fallocate lacks (and which emulates where it must not)."""
    _check(_libc.fallocate(fd, mode, offset, length))


def reader(fd: int, buffer: bytearray) -> Callable[[], int]:
    """read(2) of a descriptor into a buffer: how many bytes, or -1; then `last_error` says why.

    For what is asked again and again: os.readv() makes an exception with a message of each EAGAIN, which takes as long
    as two more system calls. Unlike that one it does not go on by itself after EINTR.
    """
    whole = (ctypes.c_char * len(buffer)).from_buffer(buffer)
    return functools.partial(_read, ctypes.c_int(fd), ctypes.byref(whole), ctypes.c_size_t(len(buffer)))


def last_error() -> int:
    """The errno of the last failed call of a `reader` in this thread."""
    return ctypes.get_errno()


def syncfs(fd: int) -> None:
    """syncfs(2): write out the whole file system that `fd` lies on."""
    _check(_libc.syncfs(fd))


def clone_mount(path: bytes, attributes: int) -> int:
    """A detached copy of the mount that `path` lies on, from there on and without mounts below: open_tree(2).

    `attributes` are all of its MOUNT_ATTR_ bits on access times (mount_setattr(2), Linux 5.12).
    """
    tree = _libc.syscall(_OPEN_TREE, AT_FDCWD, ctypes.c_char_p(path), ctypes.c_uint(_OPEN_TREE_CLONE | os.O_CLOEXEC))
    _check(tree, path)
    wanted = struct.pack("<4Q", attributes, _MOUNT_ATTR_ATIME | MOUNT_ATTR_NODIRATIME, 0, 0)
    try:
        _check(_libc.syscall(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, wanted, ctypes.c_size_t(len(wanted))), path)
    except OSError:
        os.close(tree)
        raise
    return int(tree)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own ends (PR_SET_CHILD_SUBREAPER of prctl(2))."""
    _check(_libc.prctl(36, 1, 0, 0, 0))


def filesystem_type(fd: int) -> int:
    """``f_type`` of fstatfs(2), which os.fstatvfs() leaves out."""
    status = (ctypes.c_ulong * 32)()  # struct statfs has 120 bytes on 64-bit machines and begins with it
    _check(_libc.fstatfs(fd, status))
    return int(status[0])


def mount(source: bytes, target: bytes, fstype: bytes, flags: int, data: bytes) -> None:
    """mount(2)."""
    _check(_libc.mount(source, target, fstype, flags, data), target)


def umount2(target: bytes, flags: int = 0) -> None:
    """umount2(2)."""
    _check(_libc.umount2(target, flags), target)


def reflink(source: int, target: int) -> bool:
    """Share all of `source`'s blocks with `target` (ioctl_ficlonerange(2)); False where this cannot be done."""
    import fcntl

    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as error:
        # Not the same file system (EXDEV), not one that shares blocks, not a regular file, not aligned.
        if error.errno in (errno.EXDEV, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS):
            return False
        raise
    return True


def get_flags(fd: int) -> int:
    """The inode flags of an open file or directory (ioctl_iflags(2)); 0 on a file system that has none."""
    import fcntl

    try:
        # An int, whatever the request's number says: ioctl_iflags(2), "BUGS".
        return int.from_bytes(fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(8))[:4], "little")
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            return 0
        raise
