"""The files below /etc that every container gets of its own: they are bound over those of the image."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

_HOSTS = (
    (b"127.0.0.1", b"localhost"),
    (b"::1", b"localhost ip6-localhost ip6-loopback"),
    (b"fe00::", b"ip6-localnet"),
    (b"ff00::", b"ip6-mcastprefix"),
    (b"ff02::1", b"ip6-allnodes"),
    (b"ff02::2", b"ip6-allrouters"),
)


def write(directory: str, hostname: str) -> None:
    """resolv.conf, hosts and hostname in the container's directory.

    The network is the host's, so its resolver is reachable at the very address that the host's file says, also on
    the loopback device, and so is whatever the host's own names stand for.
    """
    name = os.fsencode(hostname)
    hosts = [address + b"\t" + names for address, names in _HOSTS]
    hosts += _further(_host_file("/etc/hosts"))
    hosts.append(b"127.0.1.1\t" + name)
    _write(f"{directory}/resolv.conf", _host_file("/etc/resolv.conf"))
    _write(f"{directory}/hosts", b"".join(line + b"\n" for line in hosts))
    _write(f"{directory}/hostname", name + b"\n")


def _further(hosts: bytes) -> Iterator[bytes]:
    """The lines of a file as of hosts(5) that say more than `_HOSTS` does, as they are."""
    known = {(address, name) for address, names in _HOSTS for name in names.split()}
    for line in hosts.split(b"\n"):
        address, *names = line.partition(b"#")[0].split() or [b""]
        if any((address, name) not in known for name in names):
            yield line


def _host_file(path: str) -> bytes:
    """Links are followed on the host. What cannot be had is empty: the host's programs do without it, too."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:  # ENOENT, ELOOP, ENOTDIR, EACCES
        return b""
    try:
        # No directory, and no fifo, which could be read for ever.
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return b""
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            return stream.read()
    finally:
        os.close(descriptor)


def _write(path: str, data: bytes) -> None:
    with open(path, "wb", opener=_private_until_bound) as stream:
        stream.write(data)


def _private_until_bound(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o644)
    os.fchmod(descriptor, 0o644)  # whatever the umask: every user of the container reads them
    return descriptor
