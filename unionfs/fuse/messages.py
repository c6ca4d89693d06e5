"""What the messages of the direct front end mean: each a call of the union.

It turns wire structures into calls of the union and holds no file system state. OPEN, OPENDIR, CREATE and FLUSH are
not known (ENOSYS), after which the kernel addresses everything by node id, keeps its page cache and its directory
cache across opens, and never sends those messages again (FUSE_NO_OPEN_SUPPORT, FUSE_NO_OPENDIR_SUPPORT in
include/uapi/linux/fuse.h; CREATE falls back to MKNOD).

A malformed message gets EINVAL: `Messages.table` has the least length of each, `_name` and `_strings` the rest.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from unionfs import ownership
from unionfs.fuse import splicing, wire
from unionfs.fuse.capabilities import wanted
from unionfs.fuse.wire import Init, Op
from unionfs.mountflags import STRICTATIME
from unionfs.tree import Run
from unionfs.union import Later, SetAttr, Union
from unionfs.union.attributes import ANY_GROUP
from unionfs.whiteout import stored

if TYPE_CHECKING:
    from struct import Struct

MAX_WRITE = 1 << 20

_FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS = 0x80086601, 0x40086602  # ioctl_iflags(2)
_FS_IOC_FSGETXATTR = 0x801C581F  # ioctl_xfs_fsgetxattr(2); the kernel itself asks before it sets flags
_FSXATTR = 28

Handler = Callable[[int, memoryview, int, int], "bytes | memoryview | Run | Later | None"]
"""Gets the node id, the body, and the caller's ids; returns the reply's payload, which is good until the next call, or
where it is in a file (then all of it is there), or None where there is no reply."""

Table = dict[int, tuple[Handler, int]]
"""By opcode: the handler, and the least number of bytes with the header."""


class Messages:
    """The messages for one union. `table` has all of them, `plain` has READ with the data itself as the answer.

    `sends`: whether the caller can send so many bytes of a file without having them in memory.
    """

    def __init__(
        self, union: Union, writeback: bool, ready: Callable[[], None] | None, sends: Callable[[Run, int], bool]
    ) -> None:
        self._union = union
        self._sends = sends
        self._wanted = wanted(union, writeback)
        self._attr_head = union.valid.attr_head
        self._ready = ready
        self._setxattr_head = wire.SETXATTR_IN.size
        # What READ answers with, always the same: new memory of this size can cost a page fault a page each time.
        self._data = memoryview(bytearray(MAX_WRITE))
        handlers: list[tuple[Op, Handler, Struct | int]] = [
            (Op.INIT, self._init, wire.INIT_IN),
            (Op.DESTROY, self._release, 0),
            (Op.INTERRUPT, self._ignore, 0),
            (Op.FORGET, self._forget, wire.FORGET_IN),
            (Op.BATCH_FORGET, self._batch_forget, wire.BATCH_FORGET_IN),
            (Op.LOOKUP, self._lookup, 2),
            (Op.GETATTR, self._getattr, 0),
            (Op.SETATTR, self._setattr, wire.SETATTR_IN),
            (Op.READLINK, self._readlink, 0),
            (Op.SYMLINK, self._symlink, 4),
            (Op.MKNOD, self._mknod, wire.MKNOD_IN),
            (Op.MKDIR, self._mkdir, wire.MKDIR_IN),
            (Op.TMPFILE, self._tmpfile, wire.CREATE_IN),
            (Op.UNLINK, self._unlink, 2),
            (Op.RMDIR, self._rmdir, 2),
            (Op.RENAME, self._rename, wire.RENAME_IN),
            (Op.RENAME2, self._rename2, wire.RENAME2_IN),
            (Op.LINK, self._link, wire.LINK_IN),
            (Op.READ, self._read, wire.READ_IN),
            (Op.WRITE, self._write, wire.WRITE_IN),
            (Op.FALLOCATE, self._fallocate, wire.FALLOCATE_IN),
            (Op.LSEEK, self._lseek, wire.LSEEK_IN),
            (Op.COPY_FILE_RANGE, self._copy_file_range, wire.COPY_FILE_RANGE_IN),
            (Op.IOCTL, self._ioctl, wire.IOCTL_IN),
            (Op.STATFS, self._statfs, 0),
            (Op.RELEASE, self._release, 0),
            (Op.RELEASEDIR, self._release, 0),
            (Op.READDIRPLUS, self._readdirplus, wire.READ_IN),
            (Op.SETXATTR, self._setxattr, wire.SETXATTR_IN),
            (Op.GETXATTR, self._getxattr, wire.GETXATTR_IN),
            (Op.LISTXATTR, self._listxattr, wire.GETXATTR_IN),
            (Op.REMOVEXATTR, self._removexattr, 2),
        ]
        strict = bool(union.features.access & STRICTATIME)
        if strict:  # else what the kernel has in its cache is read without a request
            handlers.append((Op.OPEN, self._open, 0))
        if union.valid.finite or strict:
            handlers.append((Op.OPENDIR, self._opendir, 0))
        if union.durable:  # else ENOSYS: the kernel takes that for success and never asks again (fuse_fsync())
            handlers.append((Op.FSYNC, self._fsync, wire.FSYNC_IN))
            handlers.append((Op.FSYNCDIR, self._fsync, wire.FSYNC_IN))
            handlers.append((Op.SYNCFS, self._syncfs, 0))
        self.table = _table(handlers)
        self.plain = _table([(Op.READ, partial(self._read, plain=True), wire.READ_IN)])

    def _init(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        major, minor, readahead, flags = wire.INIT_IN.unpack_from(body)
        if major != wire.KERNEL_VERSION or minor < 31:
            raise OSError(errno.EPROTO, f"FUSE protocol {major}.{minor} is older than 7.31 (Linux 5.4)")
        flags &= self._wanted
        self._setxattr_head = wire.SETXATTR_IN.size if flags & Init.SETXATTR_EXT else wire.SETXATTR_IN.size // 2
        if self._ready is not None:
            self._ready()
        return wire.INIT_OUT.pack(
            wire.KERNEL_VERSION, min(minor, wire.KERNEL_MINOR), readahead, flags, 64, 48, MAX_WRITE, 1,
            MAX_WRITE // 4096, 0, 0, 0, *[0] * 6,
        )  # fmt: skip

    def _lookup(self, node: int, body: memoryview, uid: int, gid: int) -> bytes | memoryview:
        return self._union.lookup(node, _name(body))

    def _forget(self, node: int, body: memoryview, uid: int, gid: int) -> None:
        self._union.forget(node, wire.FORGET_IN.unpack_from(body)[0])

    def _batch_forget(self, node: int, body: memoryview, uid: int, gid: int) -> None:
        whole = len(body) - (len(body) - wire.BATCH_FORGET_IN.size) % wire.FORGET_ONE.size
        for id, count in wire.FORGET_ONE.iter_unpack(body[wire.BATCH_FORGET_IN.size : whole]):
            self._union.forget(id, count)

    def _getattr(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        if self._union.boundless(node):
            reading = bool(body and body[0] & wire.GETATTR_FH)
            return self._union.valid.attr_head_once + self._union.boundless_attr(node, reading)
        return self._attr_head + self._union.getattr(node)

    def _setattr(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        (
            valid, _, _, size, _, atime, mtime, _, atimensec, mtimensec, _, mode, _, new_uid, new_gid, _,
        ) = wire.SETATTR_IN.unpack_from(body)  # fmt: skip
        atime, mtime = atime * 10**9 + atimensec, mtime * 10**9 + mtimensec
        change = SetAttr(valid, mode, new_uid, new_gid, size, atime, mtime, _group(uid, gid))
        return self._attr_head + self._union.setattr(node, change)

    def _readlink(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        return self._union.readlink(node)

    def _symlink(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        name, target = _strings(body, 2)
        return self._union.symlink(node, _checked(name), target, uid, gid)

    def _mknod(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        mode, rdev, umask, _ = wire.MKNOD_IN.unpack_from(body)
        return self._union.mknod(node, _name(body[wire.MKNOD_IN.size :]), mode, rdev, uid, gid, umask)

    def _mkdir(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        mode, umask = wire.MKDIR_IN.unpack_from(body)
        return self._union.mkdir(node, _name(body[wire.MKDIR_IN.size :]), mode, uid, gid, umask)

    def _tmpfile(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        _, mode, umask, _ = wire.CREATE_IN.unpack_from(body)
        entry = self._union.tmpfile(node, mode, uid, gid, umask)
        return entry + wire.OPEN_OUT.pack(0, wire.FOPEN_KEEP_CACHE | wire.FOPEN_NOFLUSH, 0)

    def _unlink(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        self._union.unlink(node, _name(body))
        return b""

    def _rmdir(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        self._union.rmdir(node, _name(body))
        return b""

    def _rename(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        (newdir,) = wire.RENAME_IN.unpack_from(body)
        name, newname = _strings(body[wire.RENAME_IN.size :], 2)
        self._union.rename(node, _checked(name), newdir, _checked(newname))
        return b""

    def _rename2(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        newdir, flags, _ = wire.RENAME2_IN.unpack_from(body)
        name, newname = _strings(body[wire.RENAME2_IN.size :], 2)
        self._union.rename(node, _checked(name), newdir, _checked(newname), flags, uid, gid)
        return b""

    def _link(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        (id,) = wire.LINK_IN.unpack_from(body)
        return self._union.link(id, node, _name(body[wire.LINK_IN.size :]))

    def _read(self, node: int, body: memoryview, uid: int, gid: int, plain: bool = False) -> memoryview | Run:
        _, offset, size, _, _, flags, _ = wire.READ_IN.unpack_from(body)
        offset, quiet = _position(offset), bool(flags & os.O_NOATIME)
        if size >= splicing.LEAST and not plain:
            run = self._union.locate(node, offset, size, quiet)
            if self._sends(run, size):
                return run
        length = self._union.read_into(node, offset, self._data[:size], quiet)
        return self._data[:length]

    def _write(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        _, offset, size, flags, _, file_flags, _ = wire.WRITE_IN.unpack_from(body)
        if file_flags & os.O_APPEND and self._union.boundless(node):
            offset = self._union.end(node)  # of which the kernel does not know where it is
        data = body[wire.WRITE_IN.size : wire.WRITE_IN.size + size]
        if len(data) != size:
            raise malformed()
        kill_setid = _group(uid, gid) if flags & wire.WRITE_KILL_SUIDGID else None
        cached = bool(flags & wire.WRITE_CACHE)
        written = self._union.write(node, _position(offset), data, kill_setid, whole=cached)
        return wire.WRITE_OUT.pack(written, 0)

    def _statfs(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        s = self._union.statfs()
        return wire.STATFS_OUT.pack(
            s.f_blocks, s.f_bfree, s.f_bavail, s.f_files, s.f_ffree, s.f_bsize, 255, s.f_frsize, 0, *[0] * 6
        )

    def _release(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        return b""

    def _ignore(self, node: int, body: memoryview, uid: int, gid: int) -> None:
        """INTERRUPT wants no answer: no request is ever kept so long that ending it early would pay."""

    def _fsync(self, node: int, body: memoryview, uid: int, gid: int) -> bytes | Later:
        _, flags, _ = wire.FSYNC_IN.unpack_from(body)
        return self._union.fsync(node, bool(flags & 1)) or b""

    def _syncfs(self, node: int, body: memoryview, uid: int, gid: int) -> bytes | Later:
        return self._union.syncfs() or b""

    def _setxattr(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        size, flags, extra, _ = wire.SETXATTR_IN.unpack_from(body)
        name, _, value = bytes(body[self._setxattr_head :]).partition(b"\0")
        if not name or len(value) < size:
            raise malformed()
        extended = self._setxattr_head == wire.SETXATTR_IN.size
        kill_setgid = extended and bool(extra & wire.SETXATTR_ACL_KILL_SGID)
        self._union.setxattr(node, name, value[:size], flags, kill_setgid)
        return b""

    def _getxattr(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        size, _ = wire.GETXATTR_IN.unpack_from(body)
        return _sized(self._union.getxattr(node, _strings(body[wire.GETXATTR_IN.size :], 1)[0]), size)

    def _listxattr(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        size, _ = wire.GETXATTR_IN.unpack_from(body)
        return _sized(b"".join(name + b"\0" for name in self._union.listxattr(node)), size)

    def _removexattr(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        self._union.removexattr(node, _strings(body, 1)[0])
        return b""

    def _readdirplus(self, node: int, body: memoryview, uid: int, gid: int) -> bytes | memoryview:
        _, cookie, size, _, _, _, _ = wire.READ_IN.unpack_from(body)
        return self._union.listing(node, cookie, min(size, MAX_WRITE))

    def _open(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        """Without FOPEN_KEEP_CACHE, so that reading asks, and by that moves the access time."""
        return wire.OPEN_OUT.pack(0, wire.FOPEN_NOFLUSH, 0)

    def _opendir(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        """Without FOPEN_CACHE_DIR. The kernel keeps listings by st_mtime, of which a merged directory has several."""
        return wire.OPEN_OUT.pack(0, 0, 0)

    def _fallocate(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        _, offset, length, mode, _ = wire.FALLOCATE_IN.unpack_from(body)
        self._union.fallocate(node, mode, _position(offset), _position(length), _unprivileged(uid, gid))
        return b""

    def _lseek(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        _, offset, whence, _ = wire.LSEEK_IN.unpack_from(body)
        return wire.LSEEK_OUT.pack(self._union.lseek(node, offset, whence))

    def _ioctl(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        _, _, command, _, given, wanted = wire.IOCTL_IN.unpack_from(body)
        if command == _FS_IOC_GETFLAGS and wanted >= 4:
            return wire.IOCTL_OUT.pack(0, 0, 0, 0) + self._union.get_flags(node).to_bytes(4, "little")
        if command == _FS_IOC_SETFLAGS and given >= 4:
            self._union.set_flags(node, int.from_bytes(body[wire.IOCTL_IN.size :][:4], "little"))
            return wire.IOCTL_OUT.pack(0, 0, 0, 0)
        if command == _FS_IOC_FSGETXATTR and wanted >= _FSXATTR:
            return wire.IOCTL_OUT.pack(0, 0, 0, 0) + bytes(_FSXATTR)
        raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))

    def _copy_file_range(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        _, offset, target, _, target_offset, length, _ = wire.COPY_FILE_RANGE_IN.unpack_from(body)
        offset, target_offset = _position(offset), _position(target_offset)
        length = min(length, 1 << 30)
        copied = self._union.copy_file_range(node, offset, target, target_offset, length, _unprivileged(uid, gid))
        return wire.WRITE_OUT.pack(copied, 0)


def _table(handlers: list[tuple[Op, Handler, Struct | int]]) -> Table:
    return {
        opcode: (handler, wire.IN_HEADER.size + (part if isinstance(part, int) else part.size))
        for opcode, handler, part in handlers
    }


def _unprivileged(uid: int, gid: int) -> int | None:
    """The group of a caller who may not keep set-id bits, where no flag says whether it has CAP_FSETID: root has.

    Of a user namespace not even root (setattr_should_drop_suidgid() in fs/attr.c).
    """
    return None if not uid and ownership.in_initial_namespace() else _group(uid, gid)


def _group(uid: int, gid: int) -> int:
    return gid if uid else ANY_GROUP


def _sized(value: bytes, size: int) -> bytes:
    """The answer to a question with a buffer of `size` bytes; 0 asks how large it has to be (getxattr(2))."""
    if not size:
        return wire.GETXATTR_OUT.pack(len(value), 0)
    if len(value) > size:
        raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
    return value


def malformed() -> OSError:
    """The error for what the kernel would not send."""
    return OSError(errno.EINVAL, os.strerror(errno.EINVAL))


def _name(body: memoryview) -> bytes:
    """The name of a directory entry that is the rest of a message."""
    name = bytes(body)
    if name[-1:] != b"\0" or b"\0" in name[:-1]:
        raise malformed()
    return _checked(name[:-1])


def _checked(name: bytes) -> bytes:
    """A name that never leads out of its directory, as it is on disk."""
    if b"/" in name or name in (b"", b".", b".."):
        raise malformed()
    return stored(name)


def _strings(body: memoryview, count: int) -> list[bytes]:
    """The rest of a message as `count` strings that end in NUL."""
    strings = bytes(body).split(b"\0")
    if len(strings) != count + 1 or strings[-1]:
        raise malformed()
    return strings[:-1]


def _position(number: int) -> int:
    """A place in a file: loff_t is signed, its wire form is not."""
    if number >> 63:
        raise malformed()
    return number
