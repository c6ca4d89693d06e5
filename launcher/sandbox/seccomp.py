"""System call filters: seccomp(2), classic BPF assembled here (linux/bpf_common.h, linux/seccomp.h).

Two purposes, one program:

- *Denied*: what no ordinary program in a container needs and what is not confined by namespaces or has been the
  way out of a sandbox often: keyrings, bpf, perf, io_uring, userfaultfd, new namespaces and mounts (unless
  SYS_ADMIN was added or --nested given), pushing characters into a terminal. A smaller list than Docker's; the
  capabilities and the user namespace deny the rest.
- *Pretended*: with a single mapped id there is nobody to give a file to and nobody to become. Package managers do
  both all the time, so the calls report success and do nothing (as Charliecloud showed to be enough). The device 0:0,
  a whiteout of overlayfs, needs no privilege (mknod(2), since Linux 5.8) and is made.

Tables give the numbers of x86_64 and aarch64; -1 where an architecture lacks the call.
"""

from __future__ import annotations

import struct

from launcher.sandbox import capabilities
from launcher.sandbox.syscalls import machine

_ERRNO, _USER_NOTIF, _ALLOW = 0x00050000, 0x7FC00000, 0x7FFF0000
_EPERM, _ENOSYS = 1, 38
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data; arguments are 8 bytes each

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000

_S_IFMT, _S_IFCHR, _S_IFBLK = 0o170000, 0o020000, 0o060000
# All CLONE_NEW*, NEWTIME included (it shares a bit with the exit signal of clone(2), which uses below 0x80 only).
_CLONE_NAMESPACES = 0x7E020000
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C

Numbers = dict[str, tuple[int, int]]

_DENIED: Numbers = {
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "open_by_handle_at": (304, 265),
    "acct": (163, 89),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "quotactl": (179, 60),
    "lookup_dcookie": (212, 18),
    "move_pages": (279, 239),
}

_KEYRINGS = ("add_key", "request_key", "keyctl")

_DENIED_WITHOUT_SYS_ADMIN: Numbers = {
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
}

_PRETENDED: Numbers = {
    "chown": (92, -1),
    "fchown": (93, 55),
    "lchown": (94, -1),
    "fchownat": (260, 54),
    "setuid": (105, 146),
    "setgid": (106, 144),
    "setreuid": (113, 145),
    "setregid": (114, 143),
    "setgroups": (116, 159),
    "setresuid": (117, 147),
    "setresgid": (119, 149),
    "setfsuid": (122, 151),
    "setfsgid": (123, 152),
}

_CLONE, _CLONE3 = (56, 220), (435, 435)
_IOCTL = (16, 29)
_BIND = (49, 200)
_MKNOD, _MKNODAT = (133, -1), (259, 33)


def program(kept: frozenset[int], *, pretend: bool, nested: bool = False) -> bytes:
    """The filter for a command with the capabilities `kept`; `pretend` where a single id is mapped.

    `nested` lets it make namespaces, and mount in its own.
    """
    name = machine()
    column = list(_AUDIT_ARCH).index(name)
    lines = _prologue(_AUDIT_ARCH[name], x32=name == "x86_64")
    if pretend:
        for numbers in _PRETENDED.values():
            lines += _answer(numbers[column], _ERRNO)
        lines += _pretended_device(_MKNOD[column], argument=1)
        lines += _pretended_device(_MKNODAT[column], argument=2)
    for call, numbers in _DENIED.items():
        # Engines do without a keyring of their own where the kernel has none.
        absent = nested and call in _KEYRINGS
        lines += _answer(numbers[column], _ERRNO | (_ENOSYS if absent else _EPERM))
    if capabilities.SYS_ADMIN not in kept and not nested:
        for numbers in _DENIED_WITHOUT_SYS_ADMIN.values():
            lines += _answer(numbers[column], _ERRNO | _EPERM)
        # The flags of clone3 lie in memory, where a filter cannot look; ENOSYS makes libraries use clone.
        lines += _answer(_CLONE3[column], _ERRNO | _ENOSYS)
        lines += _when(_CLONE[column], 0, [_line(_ANY_BIT, _CLONE_NAMESPACES, 0, 1)], _ERRNO | _EPERM)
    for request in (_TIOCSTI, _TIOCLINUX):
        # The kernel takes the low 32 bits of the request, and so does this comparison (CVE-2019-10063).
        lines += _when(_IOCTL[column], 1, [_line(_EQUAL, request, 0, 1)], _ERRNO | _EPERM)
    lines.append(_line(_RETURN, _ALLOW))
    return b"".join(lines)


def binds() -> bytes:
    """The filter that has somebody else asked about each bind(2) (`launcher.sandbox.ports`)."""
    name = machine()
    column = list(_AUDIT_ARCH).index(name)
    lines = _prologue(_AUDIT_ARCH[name], x32=name == "x86_64")
    return b"".join([*lines, *_answer(_BIND[column], _USER_NOTIF), _line(_RETURN, _ALLOW)])


def _line(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """struct sock_filter: jumps count instructions from the next one."""
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _prologue(architecture: int, *, x32: bool) -> list[bytes]:
    """Calls of other architectures and of x32 would pass under other numbers: they do not exist (ENOSYS)."""
    lines = [
        _line(_LOAD, _ARCH),
        _line(_EQUAL, architecture, 1, 0),
        _line(_RETURN, _ERRNO | _ENOSYS),
        _line(_LOAD, _NUMBER),
    ]
    if x32:
        lines += [_line(_AT_LEAST, _X32_BIT, 0, 1), _line(_RETURN, _ERRNO | _ENOSYS)]
    return lines


def _answer(number: int, action: int) -> list[bytes]:
    if number < 0:
        return []
    return [_line(_EQUAL, number, 0, 1), _line(_RETURN, action)]


def _when(number: int, argument: int, tests: list[bytes], action: int) -> list[bytes]:
    """`action` for call `number` when `tests` fall through on the low half of an argument; else go on."""
    if number < 0:
        return []
    body = [
        _line(_LOAD, _ARGUMENTS + 8 * argument),
        *tests,
        _line(_RETURN, action),
        _line(_LOAD, _NUMBER),
    ]
    return [_line(_EQUAL, number, 0, len(body)), *body]


def _pretended_device(number: int, argument: int) -> list[bytes]:
    """mknod of a device seems to succeed; fifos, sockets, files and the character device 0:0 are really made.

    `argument` is the mode, and the device comes after it.
    """
    is_device = [
        _line(_AND, _S_IFMT),
        _line(_EQUAL, _S_IFBLK, 3, 0),
        _line(_EQUAL, _S_IFCHR, 0, 3),
        _line(_LOAD, _ARGUMENTS + 8 * (argument + 1)),
        _line(_EQUAL, 0, 1, 0),
    ]
    return _when(number, argument, is_device, _ERRNO)
