"""The direct front end: our own loop on /dev/fuse.

It turns wire messages into calls of the union and `OSError` into errno, and holds no file system state. It
answers OPEN, OPENDIR, CREATE and FLUSH with ENOSYS, after which the kernel addresses everything by node id,
keeps its page cache and its directory cache across opens, and never sends those messages again
(FUSE_NO_OPEN_SUPPORT, FUSE_NO_OPENDIR_SUPPORT in include/uapi/linux/fuse.h; CREATE falls back to MKNOD).

One thread reads and answers. What may block for long, i.e. a `Later` or the `Job` of a promotion, runs in a
worker, and its end wakes the loop through an eventfd. Requests that wait for a job are kept as they came and
are served again when it is finished.
"""

from __future__ import annotations

import errno
import os
import select
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from unionfs.fuse import wire
from unionfs.fuse.capabilities import wanted
from unionfs.fuse.waiting import Patience
from unionfs.fuse.wire import Init, Op
from unionfs.union import Busy, Job, Later, SetAttr, Union

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

MAX_WRITE = 1 << 20
BUFFER = MAX_WRITE + 4096
"""The kernel wants room for a header beside the largest write (fuse_dev_do_read())."""

WORKERS = 4

_COPIED = 4096
"""Up to so many bytes a reply is put together here: the kernel takes one piece faster than two."""

_FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS = 0x80086601, 0x40086602  # ioctl_iflags(2)
_FS_IOC_FSGETXATTR = 0x801C581F  # ioctl_xfs_fsgetxattr(2); the kernel itself asks before it sets flags
_FSXATTR = 28

Handler = Callable[[int, memoryview, int, int], "bytes | memoryview | Later | None"]


class Direct:
    """Serves one union on one /dev/fuse descriptor until it is unmounted."""

    def __init__(
        self, union: Union, fd: int, ready: Callable[[], None] | None = None, *, writeback: bool = False
    ) -> None:
        self._union = union
        self._wanted = wanted(union, writeback)
        self._attr_head = union.valid.attr_head
        self._fd = fd
        self._ready = ready
        self._pool: ThreadPoolExecutor | None = None
        self._wake = -1
        self._setxattr_head = wire.SETXATTR_IN.size
        self._running = 0  # what workers have not finished yet
        self._blocking = True
        os.set_blocking(fd, True)
        self._patience = Patience()
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._done: deque[Callable[[], None]] = deque()
        self._waiting: dict[Job, list[bytes]] = {}
        self._handlers: dict[int, Handler] = {
            Op.LOOKUP: self._lookup, Op.FORGET: self._forget, Op.BATCH_FORGET: self._batch_forget,
            Op.GETATTR: self._getattr, Op.SETATTR: self._setattr, Op.READLINK: self._readlink,
            Op.SYMLINK: self._symlink, Op.MKNOD: self._mknod, Op.MKDIR: self._mkdir,
            Op.UNLINK: self._unlink, Op.RMDIR: self._rmdir, Op.RENAME: self._rename,
            Op.RENAME2: self._rename2, Op.LINK: self._link, Op.READ: self._read, Op.WRITE: self._write,
            Op.STATFS: self._statfs, Op.RELEASE: self._release, Op.RELEASEDIR: self._release,
            Op.FSYNC: self._fsync, Op.FSYNCDIR: self._fsync, Op.SYNCFS: self._syncfs,
            Op.SETXATTR: self._setxattr, Op.GETXATTR: self._getxattr, Op.LISTXATTR: self._listxattr,
            Op.REMOVEXATTR: self._removexattr, Op.INIT: self._init, Op.DESTROY: self._release,
            Op.INTERRUPT: self._ignore, Op.READDIRPLUS: self._readdirplus,
            Op.FALLOCATE: self._fallocate, Op.LSEEK: self._lseek, Op.COPY_FILE_RANGE: self._copy_file_range,
            Op.TMPFILE: self._tmpfile, Op.IOCTL: self._ioctl,
        }  # fmt: skip
        if union.valid.finite:
            self._handlers[Op.OPENDIR] = self._opendir

    # The loop.

    def serve(self) -> None:
        """Answer until the mount is gone."""
        buffer = bytearray(BUFFER)
        view = memoryview(buffer)
        try:
            while (length := self._receive(buffer)) >= 0:
                if length:
                    self._dispatch(view[:length])
                while self._done:
                    self._running -= 1
                    self._done.popleft()()
        finally:
            self._stop()

    def _receive(self, buffer: bytearray) -> int:
        """The length of the next message, 0 for none this time, -1 for the end of the mount."""
        buffers = [buffer]
        times = self._patience.times()
        try:
            if not times and not self._running:
                self._block(True)
                return os.readv(self._fd, buffers)
            self._block(False)
            for attempt in range(1 + times):
                try:
                    length = os.readv(self._fd, buffers)
                except BlockingIOError:
                    continue
                if attempt:
                    self._patience.paid()
                return length
        except OSError as error:
            if error.errno == errno.ENODEV:
                return -1
            if error.errno != errno.ENOENT:  # the request was interrupted before it could be read
                raise
            return 0
        self._patience.failed()
        self._sleep()
        return 0

    def _block(self, blocking: bool) -> None:
        """Whether a read of the device shall wait; asleep that is one system call a request instead of three."""
        if self._blocking != blocking:
            os.set_blocking(self._fd, blocking)
            self._blocking = blocking

    def _sleep(self) -> None:
        """Until there is a request or a worker has finished."""
        if self._wake in dict(self._poll.poll()):
            os.eventfd_read(self._wake)

    def _dispatch(self, message: memoryview) -> None:
        opcode, unique, node, uid, gid = wire.REQUEST.unpack_from(message)
        handler = self._handlers.get(opcode)
        if handler is None:
            self._reply(unique, errno.ENOSYS)
            return
        try:
            answer = handler(node, message[wire.IN_HEADER.size :], uid, gid)
        except OSError as error:
            self._reply(unique, error.errno or errno.EIO)
        except Busy as busy:
            self._park(busy.job, message)
        except Exception:  # whatever it is, the mount has to live on
            import logging

            logging.getLogger(__name__).exception("request %d (opcode %d) for node %d", unique, opcode, node)
            self._reply(unique, errno.EIO)
        else:
            if answer is None:
                return
            if isinstance(answer, Later):
                self._defer(unique, answer)
            else:
                self._reply(unique, 0, answer)

    def _reply(self, unique: int, code: int, payload: bytes | memoryview = b"") -> None:
        header = wire.OUT_HEADER.pack(wire.OUT_HEADER.size + len(payload), -code, unique)
        try:
            if len(payload) <= _COPIED:
                os.write(self._fd, header + payload)
            else:
                os.writev(self._fd, (header, payload))
        except OSError as error:
            # ENOENT: interrupted meanwhile, nobody waits for the answer. ENODEV: unmounted; the loop will see it.
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                raise

    # What runs in workers.

    def _submit(self, work: Callable[[], None], done: Callable[[OSError | None], None]) -> None:
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor

            self._pool = ThreadPoolExecutor(WORKERS, "unionfs")
            self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._poll.register(self._wake, select.POLLIN)

        def run() -> None:
            failure: OSError | None = None
            try:
                work()
            except OSError as error:
                failure = error
            self._done.append(lambda: done(failure))
            os.eventfd_write(self._wake, 1)

        self._running += 1
        self._pool.submit(run)

    def _defer(self, unique: int, later: Later) -> None:
        self._submit(later.work, lambda failure: self._reply(unique, (failure.errno or errno.EIO) if failure else 0))

    def _park(self, job: Job, message: memoryview) -> None:
        self._waiting.setdefault(job, []).append(bytes(message))
        if not job.started:
            job.started = True
            self._submit(job.work, lambda _: self._finish(job))

    def _finish(self, job: Job) -> None:
        job.finish()
        for message in self._waiting.pop(job):
            if job.error is None:
                self._dispatch(memoryview(message))
            else:
                unique = wire.IN_HEADER.unpack_from(message)[2]
                self._reply(unique, job.error.errno or errno.EIO)

    def _stop(self) -> None:
        """The mount is gone: wait for the workers, then let what they did be published or cleaned up."""
        if self._pool is None:
            return
        self._pool.shutdown()
        while self._done:
            self._done.popleft()()
        os.close(self._wake)

    # Messages. A handler gets the node id, the body, and the caller's ids; it returns the reply's payload.

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
        return self._union.lookup(node, bytes(body[:-1]))

    def _forget(self, node: int, body: memoryview, uid: int, gid: int) -> None:
        self._union.forget(node, wire.FORGET_IN.unpack_from(body)[0])

    def _batch_forget(self, node: int, body: memoryview, uid: int, gid: int) -> None:
        for id, count in wire.FORGET_ONE.iter_unpack(body[wire.BATCH_FORGET_IN.size :]):
            self._union.forget(id, count)

    def _getattr(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        return self._attr_head + self._union.getattr(node)

    def _setattr(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        (
            valid, _, _, size, _, atime, mtime, _, atimensec, mtimensec, _, mode, _, new_uid, new_gid, _,
        ) = wire.SETATTR_IN.unpack_from(body)  # fmt: skip
        change = SetAttr(valid, mode, new_uid, new_gid, size, atime * 10**9 + atimensec, mtime * 10**9 + mtimensec)
        return self._attr_head + self._union.setattr(node, change)

    def _readlink(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        return self._union.readlink(node)

    def _symlink(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        name, target = bytes(body[:-1]).split(b"\0", 1)
        return self._union.symlink(node, name, target, uid, gid)

    def _mknod(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        mode, rdev, umask, _ = wire.MKNOD_IN.unpack_from(body)
        return self._union.mknod(node, bytes(body[wire.MKNOD_IN.size : -1]), mode, rdev, uid, gid, umask)

    def _mkdir(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        mode, umask = wire.MKDIR_IN.unpack_from(body)
        return self._union.mkdir(node, bytes(body[wire.MKDIR_IN.size : -1]), mode, uid, gid, umask)

    def _tmpfile(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        _, mode, umask, _ = wire.CREATE_IN.unpack_from(body)
        entry = self._union.tmpfile(node, mode, uid, gid, umask)
        return entry + wire.OPEN_OUT.pack(0, wire.FOPEN_KEEP_CACHE | wire.FOPEN_NOFLUSH, 0)

    def _unlink(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        self._union.unlink(node, bytes(body[:-1]))
        return b""

    def _rmdir(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        self._union.rmdir(node, bytes(body[:-1]))
        return b""

    def _rename(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        (newdir,) = wire.RENAME_IN.unpack_from(body)
        name, newname = bytes(body[wire.RENAME_IN.size : -1]).split(b"\0", 1)
        self._union.rename(node, name, newdir, newname)
        return b""

    def _rename2(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        newdir, flags, _ = wire.RENAME2_IN.unpack_from(body)
        name, newname = bytes(body[wire.RENAME2_IN.size : -1]).split(b"\0", 1)
        self._union.rename(node, name, newdir, newname, flags)
        return b""

    def _link(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        (id,) = wire.LINK_IN.unpack_from(body)
        return self._union.link(id, node, bytes(body[wire.LINK_IN.size : -1]))

    def _read(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        _, offset, size, _, _, _, _ = wire.READ_IN.unpack_from(body)
        return self._union.read(node, offset, size)

    def _write(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        _, offset, size, flags, _, _, _ = wire.WRITE_IN.unpack_from(body)
        data = body[wire.WRITE_IN.size : wire.WRITE_IN.size + size]
        written = self._union.write(node, offset, data, bool(flags & wire.WRITE_KILL_SUIDGID))
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
        name, value = bytes(body[self._setxattr_head :]).split(b"\0", 1)
        extended = self._setxattr_head == wire.SETXATTR_IN.size
        kill_setgid = extended and bool(extra & wire.SETXATTR_ACL_KILL_SGID)
        self._union.setxattr(node, name, value[:size], flags, kill_setgid)
        return b""

    def _getxattr(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        size, _ = wire.GETXATTR_IN.unpack_from(body)
        return _sized(self._union.getxattr(node, bytes(body[wire.GETXATTR_IN.size : -1])), size)

    def _listxattr(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        size, _ = wire.GETXATTR_IN.unpack_from(body)
        return _sized(b"".join(name + b"\0" for name in self._union.listxattr(node)), size)

    def _removexattr(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        self._union.removexattr(node, bytes(body[:-1]))
        return b""

    def _readdirplus(self, node: int, body: memoryview, uid: int, gid: int) -> bytes | memoryview:
        _, cookie, size, _, _, _, _ = wire.READ_IN.unpack_from(body)
        return self._union.listing(node, cookie, size)

    def _opendir(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        """Without FOPEN_CACHE_DIR. The kernel keeps listings by st_mtime, of which a merged directory has several."""
        return wire.OPEN_OUT.pack(0, 0, 0)

    def _fallocate(self, node: int, body: memoryview, uid: int, gid: int) -> bytes:
        _, offset, length, mode, _ = wire.FALLOCATE_IN.unpack_from(body)
        self._union.fallocate(node, mode, offset, length)
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
        copied = self._union.copy_file_range(node, offset, target, target_offset, min(length, 1 << 30))
        return wire.WRITE_OUT.pack(copied, 0)


def _sized(value: bytes, size: int) -> bytes:
    """The answer to a question with a buffer of `size` bytes; 0 asks how large it has to be (getxattr(2))."""
    if not size:
        return wire.GETXATTR_OUT.pack(len(value), 0)
    if len(value) > size:
        raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
    return value
