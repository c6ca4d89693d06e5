"""Asking the supervisor of a container for something: the client's side of the socket in its directory.

    client                          supervisor
       | ---- connect -------------> |  refused: 13, unless it is the same user or root
       | ---- signal {number} -----> |
       | <--- done ------------------ |
       | - stop {number, grace, for_now} ->|  the signal, and SIGKILL when `grace` seconds have passed (null: never)
       | <--- exited {status, error}  |  when it has ended, its state is written and its lock is free
       | ---- wait ----------------> |
       | <--- exited {status, error}  |
       | ---- pause / unpause -----> |
       | <--- done {how} ------------ |  how: "freezer" or "signals"
       | ---- flush ---------------> |
       | <--- done ------------------ |  everything that it said before is in the log
       | ---- attach {input} + fds -> |  stream sockets: output with input (a terminal: all), error
       | <--- attached {terminal} --- |
       | ---- exec {wanted, size} + fds ->|  a channel (launcher.sandbox.enter), three standard streams
       | <--- done ------------------ |  it is on its way
       | ---- exec-signal {number} -> |  for it; no answer
       | <--- finished {status} ----- |  it has ended
       | ---- resize {size} -------> |  struct winsize in hexadecimal; no answer
       | <--- exited {status, error}  |  behind all output

With `for_now` of `stop` the container still is one that `ufs start --all` brings back. A supervisor that waits to start
its container again answers `wait` at once.

`error {text, status}` comes in place of any answer; what a supervisor does not know is answered so. A connection may
ask for several things one after the other. `exited` also says whether the container was `interrupted`: whoever is
attached dies of the same. Packets are those of `launcher.sandbox.protocol`. Who starts one in the background has
the first connection to its supervisor already: on that alone comes, before it has ended,

       | <--- started --------------- |  its command has begun
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from typing import Any

from launcher.errors import UfsError
from launcher.sandbox.protocol import Channel, PeerGone

NAME = "socket"
PEER = "container's supervisor"
_LONGEST = 100  # bytes of a path that fits into struct sockaddr_un (unix(7)) on every kernel


def listen(directory: str) -> socket.socket:
    """The supervisor's end: a socket in the directory of its container, in place of one that nobody listens on."""
    end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with _Reachable(directory) as path:
        with suppress(FileNotFoundError):  # the first start
            os.unlink(path)
        try:
            end.bind(path)
        except OSError as error:  # sshfs and others have none
            raise UfsError(
                f"{directory}: no socket can be made here ({error.strerror}), which a container needs; "
                "set UFS_ROOT to a directory on another file system",
                125,
            ) from error
    end.listen(128)
    end.setblocking(False)
    return end


def connect(directory: str) -> Channel | None:
    """A connection to the supervisor of a container; None where it has none (any more)."""
    end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with _Reachable(directory) as path:
            end.connect(path)
    except OSError as error:
        end.close()
        if error.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR):
            return None
        raise
    return Channel(end, PEER)


def ask(directory: str, kind: str, answer: str, descriptors: tuple[int, ...] = (), **fields: Any) -> Any:
    """One question and the fields of its answer, of kind `answer`. None where the container has no supervisor (any
    more): what became of it is in its state then. UfsError where it refuses.
    """
    channel = connect(directory)
    if channel is None:
        return None
    try:
        channel.send(kind, descriptors, **fields)
        return channel.expect(answer).fields
    except PeerGone:
        return None
    finally:
        channel.close()


def is_ours(end: socket.socket) -> bool:
    """Whether the peer of a connection is this user or root: unix(7), SO_PEERCRED."""
    credentials = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    uid = int.from_bytes(credentials[4:8], "little")
    return uid in (0, os.geteuid())


class _Reachable:
    """A path of the socket that is short enough, however long the store's is: through the open directory."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._descriptor = -1

    def __enter__(self) -> str:
        path = f"{self._directory}/{NAME}"
        if len(os.fsencode(path)) <= _LONGEST:
            return path
        self._descriptor = os.open(self._directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._descriptor}/{NAME}"

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
