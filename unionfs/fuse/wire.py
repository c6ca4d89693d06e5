"""The FUSE wire protocol: structures, opcodes and flags of include/uapi/linux/fuse.h (7.31 and newer).

Only layout lives here; what the messages mean is the front ends' business.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import NamedTuple

KERNEL_VERSION = 7
KERNEL_MINOR = 40

FOREVER = 0x7FFFFFFF // 2
"""Seconds of validity for what only this mount can change. About 34 years; the kernel adds it to jiffies."""


class Attr(NamedTuple):
    """``struct fuse_attr`` by name; times in seconds and nanoseconds apart, `rdev` in the kernel's encoding."""

    ino: int
    size: int
    blocks: int
    atime: int
    mtime: int
    ctime: int
    atimensec: int
    mtimensec: int
    ctimensec: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    blksize: int
    flags: int = 0

    def pack(self) -> bytes:
        """The 88 bytes that the kernel reads."""
        return ATTR.pack(*self)

    @classmethod
    def unpack(cls, data: bytes | memoryview, offset: int = 0) -> Attr:
        """Name the fields of 88 packed bytes."""
        return cls._make(ATTR.unpack_from(data, offset))


# The kernel's fields are unsigned; times are signed here, since seconds before 1970 are two's complement.
ATTR = struct.Struct("<3Q3q10I")
IN_HEADER = struct.Struct("<IIQQIIIHH")  # len opcode unique nodeid uid gid pid total_extlen padding
REQUEST = struct.Struct("<4xIQQII")  # the same, only: opcode unique nodeid uid gid
OUT_HEADER = struct.Struct("<IiQ")  # len error unique
ENTRY_HEAD = struct.Struct("<QQQQII")  # nodeid generation entry_valid attr_valid entry_nsec attr_nsec; then ATTR
_NODE = struct.Struct("<QQ")  # the first two of these
ENTRY_SIZE = ENTRY_HEAD.size + ATTR.size
ENTRY_INO = slice(ENTRY_HEAD.size, ENTRY_HEAD.size + 8)
ENTRY_MODE = slice(ENTRY_HEAD.size + 60, ENTRY_HEAD.size + 64)
_UNKNOWN_INO = 0xFFFFFFFF  # FUSE_UNKNOWN_INO: the kernel makes a d_ino up
ATTR_HEAD = struct.Struct("<QII")  # attr_valid attr_nsec dummy; then ATTR
DIRENT = struct.Struct("<QQII")  # ino off namelen type; then the name, padded to 8
DIRENTPLUS = struct.Struct("<QQQQII3Q3q10IQQII")  # ENTRY_HEAD, ATTR and DIRENT in one; then the name

INIT_IN = struct.Struct("<IIII")  # major minor max_readahead flags; then flags2, unused
INIT_OUT = struct.Struct("<IIIIHHIIHHII6I")
# major minor max_readahead flags max_background congestion_threshold max_write time_gran
# max_pages map_alignment flags2 max_stack_depth unused[6]

READ_IN = struct.Struct("<QQIIQII")  # fh offset size read_flags lock_owner flags padding
WRITE_IN = struct.Struct("<QQIIQII")  # fh offset size write_flags lock_owner flags padding
WRITE_OUT = struct.Struct("<II")  # size padding
SETATTR_IN = struct.Struct("<IIQQQ3q8I")
# valid padding fh size lock_owner atime mtime ctime atimensec mtimensec ctimensec mode unused uid gid unused
MKNOD_IN = struct.Struct("<IIII")  # mode rdev umask padding; then name
MKDIR_IN = struct.Struct("<II")  # mode umask; then name
CREATE_IN = struct.Struct("<IIII")  # flags mode umask open_flags; then name
OPEN_OUT = struct.Struct("<QII")  # fh open_flags padding; behind an entry in the answer to TMPFILE
LINK_IN = struct.Struct("<Q")  # oldnodeid; then name
RENAME_IN = struct.Struct("<Q")  # newdir; then two names
RENAME2_IN = struct.Struct("<QII")  # newdir flags padding; then two names
FORGET_IN = struct.Struct("<Q")  # nlookup
BATCH_FORGET_IN = struct.Struct("<II")  # count dummy
FORGET_ONE = struct.Struct("<QQ")  # nodeid nlookup
FSYNC_IN = struct.Struct("<QII")  # fh fsync_flags padding
SETXATTR_IN = struct.Struct("<IIII")  # size flags setxattr_flags padding (SETXATTR_EXT); then name NUL value
GETXATTR_IN = struct.Struct("<II")  # size padding; then name
GETXATTR_OUT = struct.Struct("<II")  # size padding
FALLOCATE_IN = struct.Struct("<QQQII")  # fh offset length mode padding
LSEEK_IN = struct.Struct("<QqII")  # fh offset whence padding; a negative offset has an answer, too (ENXIO)
LSEEK_OUT = struct.Struct("<Q")  # offset
STATFS_OUT = struct.Struct("<5Q4I6I")  # blocks bfree bavail files ffree bsize namelen frsize padding spare[6]
IOCTL_IN = struct.Struct("<QIIQII")  # fh flags cmd arg in_size out_size; then the input
IOCTL_OUT = struct.Struct("<iIII")  # result flags in_iovs out_iovs; then the output
COPY_FILE_RANGE_IN = struct.Struct("<QQQQQQQ")  # fh_in off_in nodeid_out fh_out off_out len flags
INVAL_INODE_OUT = struct.Struct("<Qqq")  # nodeid offset length


class Op(IntEnum):
    """``enum fuse_opcode``."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SYNCFS = 50
    TMPFILE = 51
    STATX = 52


class Init(IntFlag):
    """FUSE_INIT flags; bits above 31 travel in flags2."""

    ASYNC_READ = 1 << 0
    ATOMIC_O_TRUNC = 1 << 3
    BIG_WRITES = 1 << 5
    DONT_MASK = 1 << 6
    AUTO_INVAL_DATA = 1 << 12
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    ASYNC_DIO = 1 << 15
    WRITEBACK_CACHE = 1 << 16
    NO_OPEN_SUPPORT = 1 << 17
    PARALLEL_DIROPS = 1 << 18
    HANDLE_KILLPRIV = 1 << 19
    POSIX_ACL = 1 << 20
    ABORT_ERROR = 1 << 21
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    NO_OPENDIR_SUPPORT = 1 << 24
    HANDLE_KILLPRIV_V2 = 1 << 28
    SETXATTR_EXT = 1 << 29
    INIT_EXT = 1 << 30


class Fattr:
    """FATTR_*: which fields of ``struct fuse_setattr_in`` are valid. Plain numbers: enum's operators are slow."""

    MODE = 1 << 0
    UID = 1 << 1
    GID = 1 << 2
    SIZE = 1 << 3
    ATIME = 1 << 4
    MTIME = 1 << 5
    FH = 1 << 6
    ATIME_NOW = 1 << 7
    MTIME_NOW = 1 << 8
    CTIME = 1 << 10
    KILL_SUIDGID = 1 << 11


GETATTR_FH = 1
"""Of GETATTR: a file is being read or written, and not stat(2) is asking."""

NOTIFY_INVAL_INODE = 2
"""In the place of the error, with `unique` 0: FUSE_NOTIFY_INVAL_INODE. Attributes alone where the offset is negative
(fuse_reverse_inval_inode() of fs/fuse/inode.c), which takes no lock that a request could hold."""

WRITE_CACHE = 1 << 0
"""FUSE_WRITE_CACHE: from the page cache, so no write(2) waits for how much was written."""

WRITE_KILL_SUIDGID = 1 << 2
"""FUSE_WRITE_KILL_SUIDGID: the writer may not keep set-id bits."""

SETXATTR_ACL_KILL_SGID = 1 << 0
"""FUSE_SETXATTR_ACL_KILL_SGID: whoever sets the ACL may not keep the set-group-id bit."""

FOPEN_KEEP_CACHE = 1 << 1
FOPEN_NOFLUSH = 1 << 5


def encode_rdev(major: int, minor: int) -> int:
    """A device number as the wire carries it: new_encode_dev() of include/linux/kdev_t.h."""
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)


def decode_rdev(rdev: int) -> tuple[int, int]:
    """(major, minor) of a device number on the wire."""
    return (rdev & 0xFFF00) >> 8, (rdev & 0xFF) | ((rdev >> 12) & 0xFFF00)


def entry(node: int, attr: bytes | memoryview, valid: int = FOREVER) -> bytes:
    """``struct fuse_entry_out``: what LOOKUP and every creating call answer. Node id 0 says "no such name"."""
    return ENTRY_HEAD.pack(node, 0, valid, valid, 0, 0) + attr


class Validity:
    """How long the kernel may believe what it was told: `seconds`, a float; made into bytes once.

    Also for how long a file handle (open_by_handle_at(2)) may: node ids above `rows` mean something else in the next
    mount, so they have a generation of this one. The others have 0.
    """

    __slots__ = (
        "_once",
        "_times",
        "attr_head",
        "attr_head_once",
        "entry_times",
        "finite",
        "generation",
        "rows",
        "seconds",
    )

    def __init__(self, seconds: float, rows: int, generation: int) -> None:
        self.rows = rows
        self.generation = generation
        whole = int(seconds)
        nsec = int((seconds - whole) * 1e9)
        self.seconds = seconds
        self.finite = seconds < FOREVER
        """Whether others than this mount may change what it shows."""
        self.attr_head = ATTR_HEAD.pack(whole, nsec, 0)
        """What precedes the attributes in ``struct fuse_attr_out``."""
        self.entry_times = whole, whole, nsec, nsec
        """The fields of ENTRY_HEAD after `generation`."""
        self._times = struct.pack("<QQII", *self.entry_times)
        self._once = struct.pack("<QQII", whole, 0, nsec, 0)
        self.attr_head_once = ATTR_HEAD.pack(0, 0, 0)
        """The same for attributes that the kernel shall ask for each time."""

    def entry(self, node: int, attr: bytes | memoryview) -> bytes:
        """`entry` with these timeouts."""
        return _NODE.pack(node, self.generation if node > self.rows else 0) + self._times + attr

    def entry_once(self, node: int, attr: bytes | memoryview) -> bytes:
        """The same of a name whose attributes the kernel shall ask for each time."""
        return _NODE.pack(node, self.generation if node > self.rows else 0) + self._once + attr


def direntplus(entry: bytes, ino: int, cookie: int, type_: int, name: bytes) -> bytes:
    """``struct fuse_direntplus``, padded to 8 bytes; `cookie` is where READDIRPLUS goes on after it."""
    return entry + dirent(ino, cookie, type_, name)


def unknown_direntplus(cookie: int, name: bytes) -> bytes:
    """The same for a name that is there but cannot be looked at now: LOOKUP will say why to who asks for it."""
    return direntplus(bytes(ENTRY_SIZE), _UNKNOWN_INO, cookie, 0, name)


def dirent(ino: int, cookie: int, type_: int, name: bytes) -> bytes:
    """``struct fuse_dirent``, padded to 8 bytes."""
    return DIRENT.pack(ino, cookie, len(name), type_) + name + b"\0" * (-len(name) % 8)
