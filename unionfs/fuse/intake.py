"""Taking the next message from /dev/fuse: asking again for a moment, then asleep (`unionfs.fuse.waiting`)."""

from __future__ import annotations

import errno
import os
import select
from typing import Final

from unionfs import syscalls
from unionfs.fuse.latency import LINGER_MS, CpuLatency
from unionfs.fuse.waiting import Patience
from unionfs.tree import Tree

_NOTHING = memoryview(b"")


IDLE_MS: Final = 100
"""Without a request for so long: nobody is walking through what is mounted below a layer."""


class Intake:
    """The messages of one device, one at a time, each up to `size` bytes and good until the next.

    Where the device has nothing yet, `Tree.ahead` may do a little of what is probably wanted next; where nothing comes
    for a while, what the host may want to unmount is given up.
    """

    def __init__(self, fd: int, size: int, tree: Tree) -> None:
        self._fd = fd
        self._tree = tree
        self._ahead = tree.ahead
        buffer = bytearray(size)
        self._view = memoryview(buffer)
        self._ask = syscalls.reader(fd, buffer)
        self._patience = Patience()
        self._latency = CpuLatency()
        self._blocking = True
        os.set_blocking(fd, True)
        self._wake = -1
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)

    def wake_by(self, eventfd: int) -> None:
        """Let an eventfd end a sleep, too."""
        self._wake = eventfd
        self._poll.register(eventfd, select.POLLIN)

    def take(self, others: bool) -> memoryview | None:
        """The next message; an empty one for none this time, None for the end of the mount.

        `others`: something else than a message may come, by the eventfd.
        """
        times = self._patience.times()
        if not times and not others and not self._tree.holds_mounts:
            if self._latency.kept:
                self._latency.release()
            self._block(True)
            return self._taken(self._ask())
        self._block(False)
        for attempt in range(1 + times):
            length = self._ask()
            if length < 0 and syscalls.last_error() == errno.EAGAIN:
                if times:
                    self._ahead()
                continue
            if attempt:
                self._patience.paid()
                self._latency.came()
            return self._taken(length)
        self._patience.failed()
        self._sleep()
        return _NOTHING

    def _taken(self, length: int) -> memoryview | None:
        if length > 0:
            return self._view[:length]
        if not length:  # only from a socket in the device's place
            return None
        code = syscalls.last_error()
        if code in (errno.ENODEV, errno.ECONNABORTED):  # unmounted, or aborted through fusectl
            return None
        if code in (errno.ENOENT, errno.EINTR):  # the request was interrupted before it could be read; we were
            return _NOTHING
        raise OSError(code, os.strerror(code), "/dev/fuse")

    def _block(self, blocking: bool) -> None:
        """Whether asking shall wait; asleep that is one system call a request instead of three."""
        if self._blocking != blocking:
            os.set_blocking(self._fd, blocking)
            self._blocking = blocking

    def _sleep(self) -> None:
        """Until there is a message or the eventfd counts."""
        if self._tree.holds_mounts and not self._poll.poll(IDLE_MS):
            self._tree.give_up_mounts()
        ready = self._poll.poll(LINGER_MS) if self._latency.kept else self._poll.poll()
        if self._latency.kept and not ready:
            self._latency.release()
            ready = self._poll.poll()
        if self._wake in dict(ready):
            os.eventfd_read(self._wake)

    def close(self) -> None:
        """Let idle CPUs halt again."""
        self._latency.release()
