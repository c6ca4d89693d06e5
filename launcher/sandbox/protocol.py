"""How the processes of one container talk while it starts: packets over socket pairs.

    launcher                 server                 init (pid 1 of the container)
       | ---- fork ----------> |                        |
       | <--- unshared ------- |                        |
       |  writes the id map    |                        |
       | ---- mapped --------> | opens tree and union   |
       | ---- fork (helper, enters the server's user namespace, unshares the others) ---> fork
       | <--- started {pid} -- helper, which ends       |
       | ---- go ---------------------------------------> mounts FUSE
       |                       | <--- device + fd ----- |
       |                       | serves                 | pivots, mounts, prepares
       | <--- terminal + fd ---------------------------- |  (only with -t)
       | <--- binds + fd -------------------------------- |  (only of root's containers)
       | <--- prepared {created} ----------------------- |
       | <--- end of file ------------------------------ | exec
       |                       |                        |
       | (the kernel drops the mount with the container, the server writes out)
       | ---- over ----------> | removes what is to go, ends; both have been waited for then

Any process may send `error {text, status}` in place of what is expected, and then ends; an unexpected packet is
refused. The end of file is an answer too: for init it means that exec happened, for all others that the
peer is gone. A packet is one JSON object of at most `LIMIT` bytes; `kind` says which. Descriptors travel beside
it (SCM_RIGHTS) and arrive close-on-exec.
"""

from __future__ import annotations

import json
import os
import socket
from typing import Any, NamedTuple

from launcher.errors import UfsError, describe

LIMIT = 65536
_HALF = 2048  # characters of a text, each at most 12 bytes of a packet


class Message(NamedTuple):
    """One packet: its kind, its other fields, the descriptors that came with it (owned by the receiver)."""

    kind: str
    fields: dict[str, Any]
    descriptors: list[int]


class Channel:
    """One end of a socket pair. `peer` names the other side in error messages."""

    def __init__(self, end: socket.socket, peer: str) -> None:
        self._end = end
        self.peer = peer

    @classmethod
    def pair(cls, first: str, second: str) -> tuple[Channel, Channel]:
        """The ends for the processes named `first` and `second`."""
        one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(one, second), cls(two, first)

    def fileno(self) -> int:
        """For poll(2)."""
        return self._end.fileno()

    def close(self) -> None:
        """Close this process's copy of the end."""
        self._end.close()

    def send(self, kind: str, descriptors: tuple[int, ...] = (), **fields: object) -> None:
        """Send one packet; `PeerGone` when nobody is left to read it."""
        packet = json.dumps({"kind": kind, **fields}).encode()
        try:
            if descriptors:
                socket.send_fds(self._end, [packet], descriptors, socket.MSG_NOSIGNAL)
            else:
                self._end.send(packet, socket.MSG_NOSIGNAL)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise PeerGone(f"the {self.peer} ended before {kind!r} could be sent to it", 125) from error

    def fail(self, text: str, status: int = 125) -> None:
        """Report that this process gives up. A peer that is gone has nobody to tell: that is tolerated."""
        if len(text) > 2 * _HALF:  # the cause stands at the end, behind what may be a long name
            text = f"{text[:_HALF]} [...] {text[-_HALF:]}"
        try:
            self.send("error", text=text, status=status)
        except PeerGone:
            return

    def give_up(self, doing: str, error: Exception) -> None:
        """`fail` with what an exception says; `doing` comes before what was not raised for the user's eyes."""
        if isinstance(error, UfsError):
            self.fail(str(error), error.status if error.status != 1 else 125)
        else:
            self.fail(f"{doing}: {describe(error)}")

    def receive(self) -> Message | None:
        """The next packet, or None at the end of file."""
        try:
            packet, descriptors, _, _ = socket.recv_fds(self._end, LIMIT, 4)
        except ConnectionResetError:
            # The peer ended with packets of ours unread, which is said once. What it had sent before is still there.
            packet, descriptors, _, _ = socket.recv_fds(self._end, LIMIT, 4)
        if not packet:
            return None
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        fields = json.loads(packet)
        return Message(fields.pop("kind"), fields, descriptors)

    def expect(self, kind: str) -> Message:
        """The next packet, which must be of `kind`; what the peer reports as `error` is raised here."""
        message = self.receive()
        if message is None:
            raise PeerGone(f"the {self.peer} ended before it sent {kind!r}", 125)
        if message.kind == "error":
            raise UfsError(message.fields["text"], message.fields["status"])
        if message.kind != kind:
            raise UfsError(f"the {self.peer} sent {message.kind!r} where {kind!r} was due", 125)
        return message


class PeerGone(UfsError):
    """The other side of a channel ended without a word."""
