"""System calls that Python's library does not offer, each wrapped once.

Why ctypes: `os.unshare` and `os.setns` came with Python 3.12, the descriptor-based mount calls
(open_tree, move_mount, fsopen, mount_setattr) and openat2 are in no Python, and a compiled extension of our
own would need a compiler on every machine. Nothing else of the launcher touches ctypes.

Every wrapper raises `OSError` with the errno, whose text is the call and what it was applied to.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable

from launcher.errors import UfsError

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long

# include/uapi/linux/sched.h
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000

# include/uapi/linux/mount.h
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MNT_DETACH = 2
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40
FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08

# include/uapi/linux/fcntl.h, openat2.h
AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

CLOSE_RANGE_CLOEXEC = 4

PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
SECCOMP_MODE_FILTER = 2
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_NEW_LISTENER = 8

# Calls added since Linux 5.2 have one number on every architecture; pivot_root is older than that.
_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT = 428, 429, 430, 431, 432
_CLOSE_RANGE, _OPENAT2, _MOUNT_SETATTR = 436, 437, 442
_NS_GET_USERNS = 0xB701
# IN_MODIFY, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE, IN_DELETE_SELF
_IN_CHANGES = 0x02 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400
_TRIES = 1000  # of openat2(2), which fails where it cannot be sure for the moment
_PIDFD_GETFD = 438
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


class _MountAttr(ctypes.Structure):
    _fields_ = [
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    ]


class _SockFprog(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


Path = str | bytes


def _checked(result: int, call: str, about: object = "") -> int:
    if result < 0:
        number = ctypes.get_errno()
        shown = os.fsdecode(about) if isinstance(about, bytes) else str(about)
        raise OSError(number, f"{call}({shown}): {os.strerror(number)}")
    return result


def _call(name: str, about: object, number: int, *arguments: object) -> int:
    # ctypes passes plain integers as C int; flags and descriptors fit, pointers are explicit.
    return _checked(_syscall(ctypes.c_long(number), *arguments), name, about)


def machine() -> str:
    """The architecture as uname(2) names it, one that the tables here know."""
    name = os.uname().machine
    if name not in _PIVOT_ROOT:
        raise UfsError(f"this machine is {name}; ufs-run knows {' and '.join(_PIVOT_ROOT)}", 125)
    return name


def unshare(flags: int) -> None:
    """unshare(2). With CLONE_NEWUSER the process must have one thread (EINVAL)."""
    _checked(_libc.unshare(ctypes.c_int(flags)), "unshare", hex(flags))


def setns(descriptor: int, kind: int) -> None:
    """setns(2): enter the namespace of `descriptor`, which must be of `kind` (CLONE_NEW*). That of a process (pidfd):
    all its namespaces of these kinds at once.
    """
    _checked(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(kind)), "setns", hex(kind))


def owner_of(namespace: int) -> int:
    """ioctl_ns(2), NS_GET_USERNS: a descriptor of the user namespace that owns the namespace of a descriptor."""
    return _checked(_libc.ioctl(ctypes.c_int(namespace), ctypes.c_ulong(_NS_GET_USERNS)), "ioctl", "NS_GET_USERNS")


def make_private(path: Path = "/") -> None:
    """mount(2): no mount event below `path` reaches the host from now on, and none comes from it."""
    raw = os.fsencode(path)
    flags = ctypes.c_ulong(MS_REC | MS_PRIVATE)
    _checked(_libc.mount(None, raw, None, flags, None), "mount private", path)


def pivot_root_here() -> None:
    """pivot_root(".", "."): the working directory becomes /, the old root lies stacked upon it (its man page)."""
    _call("pivot_root", ".", _PIVOT_ROOT[machine()], b".", b".")


def detach(path: Path) -> None:
    """umount2(2) with MNT_DETACH: the mount and everything below it leave the name space at once."""
    raw = os.fsencode(path)
    _checked(_libc.umount2(raw, ctypes.c_int(MNT_DETACH)), "umount2", path)


def clone_tree(path: Path, *, directory: int = AT_FDCWD, recursive: bool = True) -> int:
    """open_tree(2): a detached copy of the mount at `path`, as a descriptor to attach with `attach`.

    A mount inherited from a more privileged namespace can only be cloned together with what lies below it.
    An empty `path` clones what `directory` refers to.
    """
    raw = os.fsencode(path)
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    return _call("open_tree", path, _OPEN_TREE, directory, raw, ctypes.c_uint(flags))


def attach(tree: int, target: int) -> None:
    """move_mount(2): put a detached mount on the file that the O_PATH descriptor `target` refers to.

    By descriptor on both sides: no name is resolved again between the check of a target and its use.
    """
    flags = ctypes.c_uint(MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)
    _call("move_mount", f"fd {target}", _MOVE_MOUNT, tree, b"", target, b"", flags)


def new_mount(kind: str, options: dict[str, str | None], attributes: int) -> int:
    """fsopen(2), fsconfig(2), fsmount(2): a detached mount of a new file system, as a descriptor.

    An option whose value is None is a flag. `attributes` are MOUNT_ATTR_* bits.
    """
    context = _call("fsopen", kind, _FSOPEN, kind.encode(), FSOPEN_CLOEXEC)
    try:
        for key, value in options.items():
            command = FSCONFIG_SET_FLAG if value is None else FSCONFIG_SET_STRING
            raw = None if value is None else value.encode()
            about = key if value is None else f"{key}={value}"
            _call("fsconfig", f"{kind}, {about}", _FSCONFIG, context, command, key.encode(), raw, 0)
        _call("fsconfig", f"{kind}, create", _FSCONFIG, context, FSCONFIG_CMD_CREATE, None, None, 0)
        return _call("fsmount", kind, _FSMOUNT, context, FSMOUNT_CLOEXEC, attributes)
    finally:
        os.close(context)


def set_mount_attributes(descriptor: int, attributes: int, *, recursive: bool) -> None:
    """mount_setattr(2): add MOUNT_ATTR_* bits to the mount that `descriptor` refers to (Linux 5.12)."""
    wanted = _MountAttr(attr_set=attributes)
    flags = ctypes.c_uint(AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0))
    size = ctypes.c_size_t(ctypes.sizeof(wanted))
    _call("mount_setattr", f"fd {descriptor}", _MOUNT_SETATTR, descriptor, b"", flags,
          ctypes.byref(wanted), size)  # fmt: skip


def watch(directory: Path) -> int:
    """inotify(7): a descriptor that can be read whenever a file in `directory` is written, made, renamed or removed."""
    flags = ctypes.c_int(os.O_NONBLOCK | os.O_CLOEXEC)
    descriptor = _checked(_libc.inotify_init1(flags), "inotify_init1")
    try:
        number, raw, mask = ctypes.c_int(descriptor), os.fsencode(directory), ctypes.c_uint32(_IN_CHANGES)
        _checked(_libc.inotify_add_watch(number, raw, mask), "inotify_add_watch", directory)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def openat2(path: Path, flags: int, *, resolve: int, mode: int = 0, directory: int = AT_FDCWD) -> int:
    """openat2(2): open with limits on how `path` may be resolved (RESOLVE_*). Close-on-exec always."""
    how = _OpenHow(flags=flags | os.O_CLOEXEC, mode=mode, resolve=resolve)
    raw = os.fsencode(path)
    size = ctypes.c_size_t(ctypes.sizeof(how))
    for _ in range(_TRIES):
        try:
            return _call("openat2", path, _OPENAT2, directory, raw, ctypes.byref(how), size)
        except BlockingIOError:
            # EAGAIN: a rename or mount anywhere on the machine came while it passed a ".." (openat2(2)).
            time.sleep(0)
    return _call("openat2", path, _OPENAT2, directory, raw, ctypes.byref(how), size)


def close_on_exec_from(first: int) -> None:
    """close_range(2): every descriptor from `first` on, also one inherited from a caller, ends at exec."""
    last = ctypes.c_uint(0xFFFFFFFF)
    _call("close_range", first, _CLOSE_RANGE, ctypes.c_uint(first), last, ctypes.c_uint(CLOSE_RANGE_CLOEXEC))


def drop_from_bounding(capability: int) -> None:
    """prctl(PR_CAPBSET_DROP) for capabilities that python-prctl does not know yet."""
    _checked(_libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability)), "prctl", "PR_CAPBSET_DROP")


def install_seccomp(program: bytes) -> None:
    """prctl(PR_SET_SECCOMP): install a BPF program of 8-byte instructions; needs no_new_privs."""
    filter_ = _SockFprog(len=len(program) // 8, filter=program)
    prctl: Callable[..., int] = _libc.prctl
    zero = ctypes.c_ulong(0)
    mode = ctypes.c_ulong(SECCOMP_MODE_FILTER)
    _checked(prctl(PR_SET_SECCOMP, mode, ctypes.byref(filter_), zero, zero), "prctl", "PR_SET_SECCOMP")


def install_seccomp_listener(program: bytes) -> int:
    """seccomp(2) with SECCOMP_FILTER_FLAG_NEW_LISTENER: the descriptor on which the calls come that are to be answered.

    EBUSY where a filter that this process has already is listened to.
    """
    filter_ = _SockFprog(len=len(program) // 8, filter=program)
    flags = ctypes.c_uint(SECCOMP_FILTER_FLAG_NEW_LISTENER)
    return _call("seccomp", "listener", _SECCOMP[machine()], SECCOMP_SET_MODE_FILTER, flags, ctypes.byref(filter_))


def descriptor_of(process: int, number: int) -> int:
    """pidfd_getfd(2): a copy of descriptor `number` of the process that a pidfd stands for. Close-on-exec."""
    return _call("pidfd_getfd", number, _PIDFD_GETFD, process, number, ctypes.c_uint(0))


def bind(socket: int, address: bytes) -> None:
    """bind(2) to a struct sockaddr as it is."""
    _checked(_libc.bind(ctypes.c_int(socket), address, ctypes.c_uint(len(address))), "bind")
