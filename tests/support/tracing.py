"""Stopping a forked child at its system calls (ptrace(2)), to kill it there or to let one fail. x86-64 and arm64 for
killing, x86-64 for failing.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_TRACEME, _CONT, _SYSCALL, _POKEUSER, _SETOPTIONS, _GET_SYSCALL_INFO = 0, 7, 24, 6, 0x4200, 0x420E
_TRACESYSGOOD, _EXITKILL = 1, 1 << 20
_ENTRY, _EXIT = 1, 2
_ORIG_RAX, _RAX = 15 * 8, 10 * 8  # in struct user (sys/user.h)
_MARK = {"x86_64": 110, "aarch64": 173}[platform.machine()]  # getppid(2)
_MEMORY = {"x86_64": {9, 10, 11, 12, 25, 28}, "aarch64": {214, 215, 216, 222, 226, 233}}[platform.machine()]
"""mmap, mprotect, munmap, brk, mremap, madvise: nothing that another process could see."""

CHANGING = frozenset(
    {1, 16, 18, 40, 77, 82, 83, 84, 86, 87, 88, 90, 91, 92, 93, 94, 188, 189, 190, 197, 198, 199, 257, 258, 259, 260}
    | {263, 264, 265, 266, 268, 280, 285, 316, 326}
)
"""Of x86-64, what changes a file or a name, and openat(2): write, ioctl, pwrite64, sendfile, ftruncate, rename, mkdir,
rmdir, link, unlink, symlink, chmod, chown, setxattr and removexattr and their like, openat, mkdirat, mknodat, fchownat,
unlinkat, renameat, linkat, symlinkat, fchmodat, utimensat, fallocate, renameat2, copy_file_range."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long

ENDED, KILLED = "ended", "killed"


def run(prepare: Callable[[], Callable[[], object]], point: int, failure: int = 0) -> tuple[str, int]:
    """Call in a child what `prepare` returns, and stop it at its system call number `point` (from 0, memory aside).

    There it is killed or, where `failure` is an errno, that call (only those of CHANGING are counted then) fails with
    it and the child goes on. Says whether it was killed, and else, as ENDED, the exit status: 0, the errno of what was
    raised, or 255 for no OSError. The number is -1 where the child ended before that many calls.
    """
    with _on_one_cpu():
        return _run(prepare, point, failure)


@contextmanager
def _on_one_cpu() -> Iterator[None]:
    """For this process and the child: each stop switches between them, and waking a second CPU for it takes longer."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _run(prepare: Callable[[], Callable[[], object]], point: int, failure: int) -> tuple[str, int]:
    pid = os.fork()
    if not pid:
        _child(prepare)
    os.waitpid(pid, 0)
    _ptrace(_SETOPTIONS, pid, 0, _TRACESYSGOOD | _EXITKILL)
    seen = -1  # calls since the first mark
    while True:
        _ptrace(_SYSCALL, pid)
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status):
            code = os.WEXITSTATUS(status)
            return ENDED, code if failure and seen >= point else (-1 if code == 0 else code)
        if not os.WIFSTOPPED(status) or os.WSTOPSIG(status) != signal.SIGTRAP | 0x80:
            raise AssertionError(f"the child was stopped by {status:#x}")
        kind, number = _call(pid)
        if kind != _ENTRY or number in _MEMORY or (failure and number not in CHANGING and number != _MARK):
            continue
        if number == _MARK:
            if seen >= 0:
                return _let_go(pid, seen >= point)
            seen = 0
            continue
        if seen < 0:
            continue
        if seen == point and failure:
            _fail(pid, failure)
        elif seen == point:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return KILLED, number
        seen += 1


def _child(prepare: Callable[[], Callable[[], object]]) -> None:
    code = 255
    try:
        call = prepare()
        _ptrace(_TRACEME, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        os.getppid()
        try:
            call()
            code = 0
        except OSError as error:
            code = error.errno or 255
        os.getppid()
    finally:
        os._exit(code)


def _let_go(pid: int, reached: bool) -> tuple[str, int]:
    _ptrace(_CONT, pid)
    _, status = os.waitpid(pid, 0)
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 255
    return ENDED, code if reached or code else -1


def _fail(pid: int, failure: int) -> None:
    """Skip the call that the child is about to make, and let it see an error."""
    _ptrace(_POKEUSER, pid, _ORIG_RAX, -1)
    _ptrace(_SYSCALL, pid)
    os.waitpid(pid, 0)
    _ptrace(_POKEUSER, pid, _RAX, -failure)


def _call(pid: int) -> tuple[int, int]:
    """Entry or exit, and the number of the system call (struct ptrace_syscall_info)."""
    info = ctypes.create_string_buffer(88)
    _ptrace(_GET_SYSCALL_INFO, pid, len(info), ctypes.addressof(info))
    return info.raw[0], struct.unpack_from("<Q", info.raw, 24)[0]


def _ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> None:
    if _libc.ptrace(request, pid, address, data & (1 << 64) - 1) < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"ptrace({request:#x}): {os.strerror(code)}")
