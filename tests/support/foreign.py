"""Directories on FUSE file systems of others, which can do less than a disk."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.mounts import fuse_mounts
from tests.support.waiting import wait_until
from unionfs import syscalls

KINDS = ("bindfs", "plain-bindfs", "sshfs")
"""bindfs has neither flags of renameat2(2) nor files without a name; the plain one no xattrs either; sshfs has no hard
links that are one file, no devices, and nothing of a symbolic link can be set."""

_SFTP = "/usr/lib/openssh/sftp-server"


@contextmanager
def foreign(kind: str, base: Path) -> Iterator[Path]:
    """A directory of that kind, which lies in `base`."""
    source, target = base / "source", base / kind
    source.mkdir(parents=True)
    target.mkdir()
    servers: list[subprocess.Popen[bytes]] = []
    if kind == "sshfs":
        servers = _sshfs(source, target)
    else:
        less = ["--xattr-none"] if kind == "plain-bindfs" else []
        subprocess.run(["bindfs", *less, source, target], check=True)
    try:
        wait_until(lambda: fuse_mounts([target]), f"{kind} at {target}")
        yield target
    finally:
        syscalls.umount2(os.fsencode(target))
        wait_until(lambda: not fuse_mounts([target]), f"{target} to be unmounted")
        for server in servers:
            server.wait(10)


def _sshfs(source: Path, target: Path) -> list[subprocess.Popen[bytes]]:
    """sshfs that speaks with an SFTP server of its own, without ssh between them."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        serving = subprocess.Popen([_SFTP], stdin=theirs, stdout=theirs)
        command = ["sshfs", "-f", "-o", "slave", f"nowhere:{source}", target]
        return [subprocess.Popen(command, stdin=ours, stdout=ours, stderr=subprocess.DEVNULL), serving]
