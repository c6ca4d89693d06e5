"""The pyfuse3 front end: libfuse and trio, serving the same union.

pyfuse3 hands most calls a file handle instead of the inode; as a handle may be any integer, OPEN and OPENDIR
answer with the node id. What it does not have is missing here: fallocate, SEEK_DATA and SEEK_HOLE,
copy_file_range, xattr flags. It shows the node id as st_ino, so the numbers of files that are new in the upper
are not the same after a remount.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar, cast

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileHandleT, FileInfo, FileNameT, InodeT, RequestContext

from unionfs import whiteout
from unionfs.fuse import wire
from unionfs.fuse.intake import IDLE_MS
from unionfs.fuse.wire import Fattr
from unionfs.mountflags import STRICTATIME
from unionfs.union import Busy, Job, Later, SetAttr, Union
from unionfs.whiteout import stored

_T = TypeVar("_T")
_Method = TypeVar("_Method", bound=Callable[..., Awaitable[Any]])

_UNSEEN: Final = InodeT((1 << 64) - 1)
"""Of a name that is listed but cannot be looked at. Without a type the kernel takes the name and forgets the rest
(fuse_direntplus_link() of fs/fuse/readdir.c). With 0, as the protocol has it, libfuse has no d_ino: it is skipped."""


def serve(union: Union, fd: int, ready: Callable[[], None] | None) -> None:
    """Answer on a mounted /dev/fuse until it is unmounted."""
    logging.getLogger("pyfuse3").addFilter(_matters)
    # libfuse takes a descriptor that is mounted already by this name (fuse_mnt_parse_fuse_fd()). It closes it.
    pyfuse3.init(Operations(union, ready), f"/dev/fd/{os.dup(fd)}", set())
    try:
        trio.run(pyfuse3.main)
    except* ConnectionAbortedError:  # the connection was cut while a request was read: the end of the mount
        pass
    finally:
        pyfuse3.close(unmount=False)


def _matters(record: logging.LogRecord) -> bool:
    """ENOENT for an answer: interrupted or unmounted meanwhile, nobody waits for it (fuse_dev_do_write())."""
    return not record.getMessage().endswith(f"failed with {os.strerror(errno.ENOENT)}")


def _errno(method: _Method) -> _Method:
    """The one place where an exception becomes what pyfuse3 answers with; it would end the server otherwise."""

    @functools.wraps(method)
    async def call(*args: Any) -> Any:
        try:
            return await method(*args)
        except OSError as error:
            raise pyfuse3.FUSEError(error.errno or errno.EIO) from error
        except pyfuse3.FUSEError:
            raise
        except Exception as error:  # whatever it is, the mount has to live on
            logging.getLogger(__name__).exception("in %s%r", method.__name__, args[1:3])
            raise pyfuse3.FUSEError(errno.EIO) from error
        finally:
            args[0].served()

    return cast(_Method, call)


class Operations(pyfuse3.Operations):
    """pyfuse3's calls, turned into the union's."""

    supports_dot_lookup = False

    def __init__(self, union: Union, ready: Callable[[], None] | None) -> None:
        super().__init__()
        self._union = union
        self._timeout = union.valid.seconds
        # It makes the kernel believe no size but its own (fuse_get_cache_mask() in fs/fuse/inode.c).
        self.enable_writeback_cache = not union.valid.finite
        # Else what the kernel has in its cache is read without a request, which alone moves the access time.
        self._keep_cache = not union.features.access & STRICTATIME
        self._ready = ready
        self._finished: dict[Job, trio.Event] = {}
        self._idling = False
        self._served = 0
        self._boundless: set[InodeT] = set()  # also after they were copied up
        union.outdate = _outdate

    def init(self) -> None:
        if self._ready is not None:
            self._ready()

    def served(self) -> None:
        """A request was answered: what it opened of the host's mounts is given up when no other comes for a while."""
        self._served += 1
        if not self._idling and self._union.tree.holds_mounts:
            self._idling = True
            trio.lowlevel.spawn_system_task(self._idle)

    async def _idle(self) -> None:
        seen = -1
        while seen != self._served:
            seen = self._served
            await trio.sleep(IDLE_MS / 1000)
        self._union.tree.give_up_mounts()
        self._idling = False

    async def _do(self, call: Callable[..., _T], *args: object) -> _T:
        """A call of the union, made again after the promotion that it has to wait for."""
        while True:
            try:
                return self._now(call, *args)
            except Busy as busy:
                await self._promoted(busy.job)
                if busy.job.error is not None:
                    raise busy.job.error from None

    def _now(self, call: Callable[..., _T], *args: object) -> _T:
        """A call of the union that needs no promotion of much data."""
        return self._union.insist(functools.partial(call, *args))

    async def _promoted(self, job: Job) -> None:
        event = self._finished.get(job)
        if event is not None:
            await event.wait()
            return
        event = self._finished[job] = trio.Event()
        await _aside(job.work)
        job.finish()
        del self._finished[job]
        event.set()

    @staticmethod
    async def _later(later: Later | None) -> None:
        if later is not None:
            await _aside(later.work)

    # Names and attributes.

    @_errno
    async def lookup(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> EntryAttributes:
        return self._found(parent_inode, stored(name))

    def _found(self, parent: int, name: bytes) -> EntryAttributes:
        entry = _entry(self._now(self._union.lookup, parent, name), self._timeout)
        if entry.st_ino and self._union.boundless(entry.st_ino):
            self._boundless.add(entry.st_ino)
        return entry

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        for node, count in inode_list:
            if node != _UNSEEN:
                self._union.forget(node, count)

    @_errno
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        return _attributes(inode, self._now(self._union.getattr, inode), self._timeout)

    @_errno
    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: FileHandleT | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        valid = (
            Fattr.MODE * fields.update_mode | Fattr.UID * fields.update_uid | Fattr.GID * fields.update_gid
            | Fattr.SIZE * fields.update_size | Fattr.ATIME * fields.update_atime
            | Fattr.MTIME * fields.update_mtime
        )  # fmt: skip
        change = SetAttr(
            valid, attr.st_mode, attr.st_uid, attr.st_gid, attr.st_size, attr.st_atime_ns, attr.st_mtime_ns
        )
        return _attributes(inode, await self._do(self._union.setattr, inode, change), self._timeout)

    @_errno
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        return FileNameT(self._now(self._union.readlink, inode))

    @_errno
    async def mknod(
        self, parent_inode: InodeT, name: FileNameT, mode: int, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        device = wire.encode_rdev(os.major(rdev), os.minor(rdev))
        return _entry(
            self._now(self._union.mknod, parent_inode, stored(name), mode, device, ctx.uid, ctx.gid), self._timeout
        )

    @_errno
    async def mkdir(self, parent_inode: InodeT, name: FileNameT, mode: int, ctx: RequestContext) -> EntryAttributes:
        return _entry(self._now(self._union.mkdir, parent_inode, stored(name), mode, ctx.uid, ctx.gid), self._timeout)

    @_errno
    async def symlink(
        self, parent_inode: InodeT, name: FileNameT, target: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        return _entry(
            self._now(self._union.symlink, parent_inode, stored(name), target, ctx.uid, ctx.gid), self._timeout
        )

    @_errno
    async def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        return _entry(await self._do(self._union.link, inode, new_parent_inode, stored(new_name)), self._timeout)

    @_errno
    async def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        await self._do(self._union.unlink, parent_inode, stored(name))

    @_errno
    async def rmdir(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        await self._do(self._union.rmdir, parent_inode, stored(name))

    @_errno
    async def rename(
        self,
        parent_inode_old: InodeT,
        name_old: FileNameT,
        parent_inode_new: InodeT,
        name_new: FileNameT,
        flags: int,
        ctx: RequestContext,
    ) -> None:
        await self._do(
            self._union.rename,
            parent_inode_old,
            stored(name_old),
            parent_inode_new,
            stored(name_new),
            flags,
            ctx.uid,
            ctx.gid,
        )

    # Directories.

    @_errno
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        return FileHandleT(inode)

    @_errno
    async def readdir(self, fh: FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        for name, after in self._union.entries(fh, start_id):
            if name in (b".", b".."):
                continue
            shown = self._listed(fh, name)
            if shown.st_ino and not pyfuse3.readdir_reply(token, FileNameT(whiteout.shown(name)), shown, after):
                await self.forget([(shown.st_ino, 1)])
                return

    def _listed(self, directory: int, name: bytes) -> EntryAttributes:
        try:
            return self._found(directory, name)
        except OSError:  # a LOOKUP will say why to who asks for it
            shown = EntryAttributes()
            shown.st_ino, shown.st_mode = _UNSEEN, 0
            return shown

    async def releasedir(self, fh: FileHandleT) -> None:
        return

    @_errno
    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        await self._later(self._union.fsync(fh, datasync))

    # Files.

    @_errno
    async def open(self, inode: InodeT, flags: int, ctx: RequestContext) -> FileInfo:
        if flags & os.O_TRUNC:  # libfuse asks for FUSE_ATOMIC_O_TRUNC: no SETATTR follows
            kill = Fattr.KILL_SUIDGID if ctx.uid else 0
            await self._do(self._union.setattr, inode, SetAttr(Fattr.SIZE | kill, group=ctx.gid))
            _outdate(inode)  # the answer has no attributes, and the kernel asks for the size alone
        if inode in self._boundless:  # the kernel reads on, whatever size it has seen first
            return FileInfo(fh=FileHandleT(inode), direct_io=True)
        return _handle(inode, keep_cache=self._keep_cache)

    @_errno
    async def create(
        self, parent_inode: InodeT, name: FileNameT, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        attributes = _entry(
            self._now(self._union.mknod, parent_inode, stored(name), mode, 0, ctx.uid, ctx.gid), self._timeout
        )
        return _handle(attributes.st_ino), attributes

    @_errno
    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        return self._now(self._union.read, fh, off, size)

    @_errno
    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        return await self._do(self._union.write, fh, off, buf)

    async def release(self, fh: FileHandleT) -> None:
        return

    async def flush(self, fh: FileHandleT) -> None:
        return

    @_errno
    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        await self._later(self._union.fsync(fh, datasync))

    @_errno
    async def statfs(self, ctx: RequestContext) -> pyfuse3.StatvfsData:
        shown, known = pyfuse3.StatvfsData(), self._union.statfs()
        for name in ("bsize", "frsize", "blocks", "bfree", "bavail", "files", "ffree", "favail"):
            setattr(shown, f"f_{name}", getattr(known, f"f_{name}"))
        shown.f_namemax = 255
        return shown

    # Extended attributes.

    @_errno
    async def getxattr(self, inode: InodeT, name: bytes, ctx: RequestContext) -> bytes:
        return self._now(self._union.getxattr, inode, name)

    @_errno
    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[bytes]:
        return self._now(self._union.listxattr, inode)

    @_errno
    async def setxattr(self, inode: InodeT, name: bytes, value: bytes, ctx: RequestContext) -> None:
        await self._do(self._union.setxattr, inode, name, value, 0)

    @_errno
    async def removexattr(self, inode: InodeT, name: bytes, ctx: RequestContext) -> None:
        await self._do(self._union.removexattr, inode, name)


def _outdate(node: int) -> None:
    with contextlib.suppress(FileNotFoundError):  # a node that the kernel has forgotten
        pyfuse3.invalidate_inode(InodeT(node), attr_only=True)


async def _aside(work: Callable[[], None]) -> None:
    """In a thread, or here where no more can be started (RLIMIT_NPROC of getrlimit(2)); `work` raises OSError alone."""
    try:
        await trio.to_thread.run_sync(work)
    except RuntimeError:
        work()


def _handle(node: int, keep_cache: bool = True) -> FileInfo:
    return FileInfo(fh=FileHandleT(node), keep_cache=keep_cache)


def _entry(packed: bytes | memoryview, timeout: float) -> EntryAttributes:
    """``struct fuse_entry_out`` as pyfuse3 wants it; node id 0 says "no such name"."""
    node = int.from_bytes(packed[:8], "little")
    shown = _attributes(node, packed[wire.ENTRY_HEAD.size :], timeout)
    shown.generation = int.from_bytes(packed[8:16], "little")
    return shown


def _attributes(node: int, packed: bytes | memoryview, timeout: float) -> EntryAttributes:
    attr = wire.Attr.unpack(packed)
    shown = EntryAttributes()
    shown.st_ino = InodeT(node)
    shown.entry_timeout = shown.attr_timeout = timeout
    shown.st_mode = attr.mode
    shown.st_nlink = attr.nlink
    shown.st_uid, shown.st_gid = attr.uid, attr.gid
    shown.st_rdev = os.makedev(*wire.decode_rdev(attr.rdev))
    shown.st_size, shown.st_blocks, shown.st_blksize = attr.size, attr.blocks, attr.blksize
    shown.st_atime_ns = attr.atime * 10**9 + attr.atimensec
    shown.st_mtime_ns = attr.mtime * 10**9 + attr.mtimensec
    shown.st_ctime_ns = attr.ctime * 10**9 + attr.ctimensec
    return shown
