"""Ports below 1024 of the host's network, for root's containers.

The network belongs to the initial user namespace, so CAP_NET_BIND_SERVICE of a container does not count for it
(bind(2): EACCES), although whoever started it may open any port. So a filter sends each bind(2) here
(seccomp_unotify(2)), and where the caller has the capability inside and the port is a low one, this process binds that
very socket. Every other call goes on in the kernel, which checks it as ever.

The address is copied once, and what was copied is bound: a program that changes it meanwhile gains nothing.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket as sockets
import struct
from contextlib import suppress

from launcher.sandbox import syscalls

NET_BIND_SERVICE = 10

# include/uapi/linux/seccomp.h: struct seccomp_notif with the first three arguments, struct seccomp_notif_resp
_NOTICE, _NOTICE_SIZE = struct.Struct("=QIIiIQQQQ"), 80
_ANSWER = struct.Struct("=QqiI")
_RECEIVE, _SEND, _VALID = 0xC0502100, 0xC0182101, 0x40082102
_CONTINUE = 1

_FAMILIES = (sockets.AF_INET, sockets.AF_INET6)
_LONGEST = 128  # struct sockaddr_storage


class Binder:
    """Answers at the listener of a container's filter, which it owns."""

    def __init__(self, listener: int) -> None:
        self.listener = listener

    def answer(self) -> bool:
        """One call; False when the last process with the filter has ended."""
        state = select.poll()
        state.register(self.listener, select.POLLIN)
        if any(events & select.POLLHUP for _, events in state.poll(0)):
            return False
        notice = bytearray(_NOTICE_SIZE)
        try:
            fcntl.ioctl(self.listener, _RECEIVE, notice)
        except FileNotFoundError:  # it was killed meanwhile
            return True
        cookie, caller, *_, socket, address, length = _NOTICE.unpack_from(notice)
        try:
            bound = self._bind(cookie, caller, socket & 0xFFFFFFFF, address, length & 0xFFFFFFFF)
            reply = _ANSWER.pack(cookie, 0, 0, 0 if bound else _CONTINUE)
        except OSError as error:
            reply = _ANSWER.pack(cookie, 0, -(error.errno or 1), 0)
        with suppress(FileNotFoundError):
            fcntl.ioctl(self.listener, _SEND, reply)
        return True

    def _bind(self, cookie: int, caller: int, socket: int, address: int, length: int) -> bool:
        """Whether it was bound; False where the kernel is to do what it does."""
        try:
            with open(f"/proc/{caller}/mem", "rb", buffering=0) as memory:
                memory.seek(address)
                copied = memory.read(length) if length <= _LONGEST else b""
            leader, capable = _status(caller)
            if len(copied) != length or not _is_low(copied) or not capable:
                return False
            process = os.pidfd_open(leader)
        except (OSError, OverflowError):  # an address that is none, or the caller is gone
            return False
        try:
            fcntl.ioctl(self.listener, _VALID, struct.pack("=Q", cookie))  # no other process has got its number
            same = syscalls.descriptor_of(process, socket)
        finally:
            os.close(process)
        with sockets.socket(fileno=same) as theirs:
            if theirs.family not in _FAMILIES:
                return False
            syscalls.bind(same, copied)
        return True


def _is_low(address: bytes) -> bool:
    if len(address) < 16 or int.from_bytes(address[:2], "little") not in _FAMILIES:
        return False
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start") as setting:
        return 0 < int.from_bytes(address[2:4], "big") < int(setting.read())


def _status(caller: int) -> tuple[int, bool]:
    """(its thread group, whether it holds the capability in its user namespace)."""
    with open(f"/proc/{caller}/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    return int(fields["Tgid"]), bool(int(fields["CapEff"], 16) >> NET_BIND_SERVICE & 1)
