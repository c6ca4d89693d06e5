"""The direct front end on messages that the kernel would not send: an errno for each, and it serves on.

A socket stands in the device's place, because only there may anybody but the kernel write messages; loop, messages and
union are the real ones.
"""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.content import LOWERS, Lower
from unionfs.fuse import wire
from unionfs.fuse.wire import Op
from unionfs.open import open_union
from unionfs.serve import serve
from unionfs.tree import ROOT

UNANSWERED = {Op.FORGET, Op.BATCH_FORGET, Op.INTERRUPT}
SOME_SIZE = 16 << 20


class Peer:
    """The kernel's end of the socket."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._unique = 0
        self.seen: list[int] = [ROOT]

    def send(self, opcode: int, node: int = ROOT, body: bytes = b"") -> int:
        self._unique += 2
        length = wire.IN_HEADER.size + len(body)
        self.send_raw(wire.IN_HEADER.pack(length, opcode, self._unique, node, 0, 0, 1, 0, 0) + body)
        return self._unique

    def send_raw(self, message: bytes) -> None:
        self._end.send(message)

    def receive(self) -> tuple[int, int, bytes]:
        """(unique, errno, payload) of one reply, whose form is checked."""
        reply = self._end.recv(2 << 20)
        assert reply, "the server has closed its end"
        length, code, unique = wire.OUT_HEADER.unpack_from(reply)
        assert length == len(reply)
        if not unique:  # asked for by nobody
            assert (code, length) == (wire.NOTIFY_INVAL_INODE, wire.OUT_HEADER.size + wire.INVAL_INODE_OUT.size)
            return self.receive()
        assert -4096 < code <= 0
        assert not (code and len(reply) > wire.OUT_HEADER.size), "an error has no payload"
        return unique, -code, reply[wire.OUT_HEADER.size :]

    def ask(self, opcode: int, node: int = ROOT, body: bytes = b"") -> tuple[int, bytes]:
        """The answer to a message, and to none before it."""
        wanted = self.send(opcode, node, body)
        while True:
            unique, code, payload = self.receive()
            if unique == wanted:
                return code, payload


@pytest.fixture(params=LOWERS)
def peer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Peer]:
    lower = Lower(tmp_path / "lower", request.param)
    (tmp_path / "upper").mkdir()
    (tmp_path / "work").mkdir()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(20)
    pid = os.fork()
    if not pid:
        status = 1
        try:
            ours.close()
            log = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(log, 2)
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (SOME_SIZE, SOME_SIZE))
            union = open_union(lower.open(), os.fsencode(tmp_path / "upper"), os.fsencode(tmp_path / "work"))
            serve(union, theirs.detach())
            status = 0
        finally:
            os._exit(status)
    theirs.close()
    peer = Peer(ours)
    try:
        code, payload = peer.ask(Op.INIT, 0, wire.INIT_IN.pack(7, 40, 65536, 0xFFFFFFFF))
        assert (code, len(payload)) == (0, wire.INIT_OUT.size)
        yield peer
        code, payload = peer.ask(Op.GETATTR, ROOT, bytes(16))
        assert (code, len(payload)) == (0, wire.ATTR_HEAD.size + wire.ATTR.size), "it does not serve on"
    finally:
        ours.close()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert (status, (tmp_path / "log").read_text()) == (0, "")


def test_unknown_opcodes(peer: Peer) -> None:
    for opcode in (0, 7, 19, 31, 49, 53, 1000, 4096, 0xFFFFFFFF):
        assert peer.ask(opcode) == (errno.ENOSYS, b"")


def test_random_bytes(peer: Peer) -> None:
    """With a header that says whom to answer, and without."""
    dice = random.Random(1)
    for length in [*range(1, 60), 100, 1000, 5000, 200_000]:
        peer.send_raw(dice.randbytes(length))
        peer.ask(Op.STATFS)


@pytest.mark.parametrize("opcode", [op for op in Op if op not in (Op.INIT, Op.DESTROY)])
def test_every_opcode_cut_and_filled(peer: Peer, opcode: Op) -> None:
    """Bodies of each length with zeros, ones and noise: each gets one answer."""
    dice = random.Random(int(opcode))
    for length in [*range(0, 140, 3), 4096]:
        for body in (bytes(length), b"\xff" * length, dice.randbytes(length), b"name\0" * (length // 5)):
            for node in (ROOT, 0, 2, 5, 1 << 48, 0xFFFFFFFFFFFFFFFF):
                if opcode in UNANSWERED:
                    peer.send(opcode, node, body)
                else:
                    peer.ask(opcode, node, body)
        peer.ask(Op.GETATTR, ROOT, bytes(16))


def test_the_mode_of_a_symlink_is_not_its_targets(peer: Peer, tmp_path: Path) -> None:
    """The kernel asks for no such thing; a server that followed the link would do it to any file of the host."""
    outside = tmp_path / "outside"
    outside.write_text("x")
    outside.chmod(0o640)
    code, payload = peer.ask(Op.SYMLINK, ROOT, b"way\0" + os.fsencode(outside) + b"\0")
    assert code == 0
    (node,) = struct.unpack_from("<Q", payload)
    change = wire.SETATTR_IN.pack(wire.Fattr.MODE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0o777, 0, 0, 0, 0)
    assert peer.ask(Op.SETATTR, node, change)[0] == errno.EOPNOTSUPP
    for valid in (wire.Fattr.UID, wire.Fattr.MTIME):
        change = wire.SETATTR_IN.pack(valid, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 7, 7, 0)
        assert peer.ask(Op.SETATTR, node, change)[0] == 0
    cut = wire.SETATTR_IN.pack(wire.Fattr.SIZE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    assert peer.ask(Op.SETATTR, node, cut)[0] != 0
    assert peer.ask(Op.WRITE, node, wire.WRITE_IN.pack(0, 0, 1, 0, 0, 0, 0) + b"y")[0] != 0
    now = outside.stat()
    assert (now.st_mode & 0o7777, now.st_uid, now.st_mtime > 5, outside.read_text()) == (0o640, os.geteuid(), True, "x")


def real_traffic(peer: Peer, node: int, dice: random.Random) -> tuple[Op, bytes]:
    """A well-formed request of some kind."""
    name = dice.choice([b"a", b"d", b"f", b"new", b"big", b"m", b"s", b"p"]) + b"\0"
    other = dice.choice([b"b", b"x", b"e", b"a"]) + b"\0"
    return dice.choice([
        (Op.LOOKUP, name), (Op.UNLINK, name), (Op.RMDIR, name), (Op.GETATTR, bytes(16)), (Op.READLINK, b""),
        (Op.MKDIR, wire.MKDIR_IN.pack(0o755, 0o22) + name), (Op.SYMLINK, name + other),
        (Op.MKNOD, wire.MKNOD_IN.pack(0o100644, 0, 0o22, 0) + name),
        (Op.RENAME2, wire.RENAME2_IN.pack(node, dice.choice([0, 1, 2, 4]), 0) + name + other),
        (Op.LINK, wire.LINK_IN.pack(dice.choice(peer.seen)) + name),
        (Op.READ, wire.READ_IN.pack(0, 0, 4096, 0, 0, 0, 0)),
        (Op.WRITE, wire.WRITE_IN.pack(0, 9, 4, 0, 0, 0, 0) + b"data"),
        (Op.READDIRPLUS, wire.READ_IN.pack(0, 0, 4096, 0, 0, 0, 0)),
        (Op.FALLOCATE, wire.FALLOCATE_IN.pack(0, 0, 99, 0, 0)),
        (Op.SETXATTR, wire.SETXATTR_IN.pack(5, 0, 0, 0) + b"user.x\0value"),
        (Op.LISTXATTR, wire.GETXATTR_IN.pack(999, 0)),
        (Op.GETXATTR, wire.GETXATTR_IN.pack(99, 0) + b"user.x\0"), (Op.SETATTR, struct.pack("<II", 1, 0) + bytes(80)),
        (Op.FSYNC, wire.FSYNC_IN.pack(0, 0, 0)), (Op.LSEEK, wire.LSEEK_IN.pack(0, 0, 3, 0)),
        (Op.TMPFILE, bytes(16) + b"/\0"),
    ])  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_mutated_traffic(peer: Peer, seed: int) -> None:
    """Real requests with some bytes changed. Whatever they do to the tree, each is answered in form."""
    dice = random.Random(seed)
    for _ in range(1500):
        opcode, body = real_traffic(peer, dice.choice(peer.seen), dice)
        changed = bytearray(body)
        for _ in range(dice.choice([0, 0, 1, 1, 3])):
            if changed:
                changed[dice.randrange(len(changed))] = dice.choice([0, 1, 0x2F, 0x7F, 0x80, 0xFF])
        if dice.random() < 0.1:
            changed = changed[: dice.randrange(len(changed) + 1)]
        code, payload = peer.ask(opcode, dice.choice(peer.seen), bytes(changed))
        if not code and opcode in (Op.LOOKUP, Op.MKDIR, Op.MKNOD, Op.SYMLINK, Op.LINK, Op.TMPFILE):
            (node,) = struct.unpack_from("<Q", payload)
            if node:
                peer.seen.append(node)
