"""Serving a mounted union with one of the two front ends."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable

from unionfs import limits
from unionfs.union import Union

ENGINES = ("direct", "pyfuse3")


def serve(
    union: Union,
    fd: int,
    engine: str = "direct",
    ready: Callable[[], None] | None = None,
    *,
    writeback: bool = False,
) -> None:
    """Answer the kernel on `fd`, a mounted /dev/fuse, until it is unmounted; then release everything.

    `writeback`: let the kernel keep what is written and merge small writes (*direct* only; pyfuse3 always does).
    `ready` is called once the mount answers. The mode of what is made comes from the kernel, which has applied
    the caller's umask already; so this process's is cleared.
    """
    os.umask(0)
    limits.lift()
    # Nodes are many and live long, cycles are few (tracebacks): the collector need not look at them all so often.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    gc.enable()  # a start may have turned it off
    try:
        if engine == "direct":
            from unionfs.fuse.direct import Direct

            Direct(union, fd, ready, writeback=writeback).serve()
        elif engine == "pyfuse3":
            from unionfs.fuse import libfuse

            libfuse.serve(union, fd, ready)
        else:
            raise ValueError(f"unknown engine {engine!r}: use one of {', '.join(ENGINES)}")
    finally:
        union.close()
        os.close(fd)
