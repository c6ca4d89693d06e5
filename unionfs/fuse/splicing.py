"""Answers to large READs that never come by this process's memory: from the file through a pipe to the device.

splice(2) moves references to the pages of the file into the pipe, and fuse_dev_splice_write() of fs/fuse/dev.c copies
from them: one copy of the data instead of two. The header has to be in the pipe first, with the length, so only what is
known to be there is sent like that.
"""

from __future__ import annotations

import fcntl
import os
from typing import Final

from unionfs.fuse import wire
from unionfs.tree import Run

_MOST: Final = 512 << 10
_PIPE: Final = 1 << 20
"""What any user may have (/proc/sys/fs/pipe-max-size): twice the data, since a buffer may be less than a page."""


class Splicer:
    """Sends pieces of files to one /dev/fuse."""

    def __init__(self, device: int) -> None:
        self._device = device
        self._out = self._in = -1  # none: nothing is taken
        self._open()

    def _open(self) -> None:
        """Make the pipe. EMFILE, ENFILE, EPERM: this user may have no more, or none of that size (pipe(7))."""
        try:
            self._out, self._in = os.pipe()
            os.set_blocking(self._in, False)  # rather an error than waiting for ourselves
            fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, _PIPE)
        except OSError:
            self.close()

    def takes(self, run: Run, size: int) -> bool:
        """Whether `run` is all of the `size` bytes that were asked for, and can be sent."""
        if size > _MOST or run.length < size or run.fd < 0 or self._in < 0:
            return False
        return os.fstat(run.fd).st_size >= run.offset + size

    def send(self, unique: int, run: Run) -> bool:
        """Answer a request with it. False where that did not work: then the request is still to be answered.

        Raises what the device says of the answer.
        """
        filled = sent = False
        try:
            filled = self._fill(unique, run)
            if filled:
                os.splice(self._out, self._device, wire.OUT_HEADER.size + run.length)
                sent = True
        finally:
            if not sent:  # what is in the pipe must not come before the next answer
                self.close()
                self._open()
        return filled

    def _fill(self, unique: int, run: Run) -> bool:
        """Header and data into the pipe; False where the file was cut meanwhile, or has no splice(2)."""
        fd, offset, left = run
        os.write(self._in, wire.OUT_HEADER.pack(wire.OUT_HEADER.size + left, 0, unique))
        try:
            while left and (moved := os.splice(fd, self._in, left, offset_src=offset)):
                offset += moved
                left -= moved
        except OSError:  # EINVAL: a file system without splice. Of others, such as EIO, a plain read will tell.
            return False
        return not left

    def close(self) -> None:
        """Close the pipe, with what is in it."""
        for fd in (self._out, self._in):
            if fd >= 0:
                os.close(fd)
        self._out = self._in = -1
