"""Open descriptors kept for a while: the least recently used one goes first."""

from __future__ import annotations

import os
import resource
from collections import OrderedDict
from functools import cache

_MOST = 4096


@cache
def share() -> int:
    """How many descriptors one cache may keep, after the soft limit of open files was raised to the hard one.

    An eighth of the limit: there are four caches at most, files without a name have another eighth (`unionfs.upper`),
    and the rest is for what is open for a moment, pipes and the layers themselves.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return _MOST if hard == resource.RLIM_INFINITY else max(4, min(_MOST, hard // 8))


class Descriptors:
    """A bounded set of descriptors by node id. Whoever needs one beyond the next call, dups it."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._open: OrderedDict[int, int] = OrderedDict()

    def get(self, node: int) -> int:
        """The descriptor kept for a node, or -1."""
        fd = self._open.get(node, -1)
        if fd >= 0:
            self._open.move_to_end(node)
        return fd

    def put(self, node: int, fd: int) -> None:
        """Keep a descriptor, which is owned from now on; an older one of the node is closed."""
        self.drop(node)
        self._open[node] = fd
        if len(self._open) > self._capacity:
            os.close(self._open.popitem(last=False)[1])

    def take(self, node: int) -> int:
        """The descriptor kept for a node, no longer owned here, or -1."""
        return self._open.pop(node, -1)

    def drop(self, node: int) -> None:
        """Close what is kept for a node."""
        fd = self._open.pop(node, -1)
        if fd >= 0:
            os.close(fd)

    def close(self) -> None:
        """Close everything."""
        while self._open:
            os.close(self._open.popitem()[1])
