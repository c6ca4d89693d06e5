"""Where output of a container goes to: the caller's own streams, or the socket of somebody attached.

Writing never blocks the supervisor. Whoever does not take what is written makes the container wait, as a pipe would.
"""

from __future__ import annotations

import os
import select
import socket
import stat
from collections.abc import Callable

from launcher.supervisor.loop import Loop

_SURE = 4096  # bytes that a write(2) takes without blocking once poll(2) said that it takes any (PIPE_BUF)


class Sink:
    """One place that output goes to. `gone` is called when nothing can be written any more, with the reason."""

    def __init__(self, loop: Loop, descriptor: int, gone: Callable[[OSError], None]) -> None:
        self._loop = loop
        self._gone = gone
        self._descriptor, self._write = _writer(descriptor)
        self._pending = b""
        self._drained: Callable[[], None] = lambda: None

    @property
    def waiting(self) -> bool:
        """Whether there is something that could not be written yet."""
        return bool(self._pending)

    def put(self, data: bytes, drained: Callable[[], None]) -> None:
        """Write `data`, at once or as soon as it is taken: then `drained` is called."""
        if self._pending:
            self._pending += data
        else:
            self._pending = self._try(data)
        if self._pending:
            self._drained = drained
            self._loop.writes(self._descriptor, self._on_writable)

    def close(self) -> None:
        """Write no more."""
        self._loop.writes(self._descriptor, None)
        os.close(self._descriptor)

    def _on_writable(self) -> None:
        self._pending = self._try(self._pending)
        if not self._pending:
            self._loop.writes(self._descriptor, None)
            self._drained()

    def _try(self, data: bytes) -> bytes:
        """Write what is taken now; the rest."""
        view = memoryview(data)
        try:
            while view:
                view = view[self._write(view) :]
        except BlockingIOError:
            return bytes(view)
        except OSError as error:  # EPIPE, ECONNRESET: the reader is gone; EIO: its terminal; ENOSPC, EFBIG: a full disk
            self._gone(error)
        return b""


def _writer(descriptor: int) -> tuple[int, Callable[[memoryview], int]]:
    """A descriptor of our own for `descriptor`, and a way to write to it that does not block.

    O_NONBLOCK belongs to the open file, which the caller's shell shares: so it is never set on `descriptor` itself.
    """
    mine = os.dup(descriptor)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return mine, lambda data: os.write(mine, data)
    if stat.S_ISSOCK(mode):
        end = socket.socket(fileno=os.dup(descriptor))
        return mine, lambda data: end.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    try:
        again = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:  # another user's pipe or terminal (EACCES): little by little
        watch = select.poll()
        watch.register(mine, select.POLLOUT)
        return mine, lambda data: _carefully(mine, watch, data)
    os.close(mine)
    return again, lambda data: os.write(again, data)


def _carefully(descriptor: int, watch: select.poll, data: memoryview) -> int:
    if not watch.poll(0):
        raise BlockingIOError
    return os.write(descriptor, data[:_SURE])
