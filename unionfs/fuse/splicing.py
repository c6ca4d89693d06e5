"""Answers to large READs that never come by this process's memory: from the file through a pipe to the device.

splice(2) moves references to the pages of the file into the pipe, and fuse_dev_splice_write() of fs/fuse/dev.c copies
from them: one copy of the data instead of two. The header has to be in the pipe first, with the length, so only what is
known to be there is sent like that.
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Final

from unionfs.fuse import wire
from unionfs.tree import Run

LEAST: Final = 32 << 10
"""Bytes from which on it pays; for fewer, more system calls cost what a copy does."""

_MOST: Final = 128 << 10
"""What the kernel reads ahead at a time, unless told otherwise. More is asked for by O_DIRECT alone."""

_PIPE: Final = 256 << 10
"""Twice the data, since a buffer may be less than a page. An ordinary user may have 64 MiB of pipes (pipe(7))."""


class Splicer:
    """Sends pieces of files to one /dev/fuse, through a pipe that is made when first needed."""

    def __init__(self, device: int) -> None:
        self._device = device
        self._out = self._in = -1
        self._works = True

    def takes(self, run: Run, size: int) -> bool:
        """Whether `run` is all of the `size` bytes that were asked for, and can be sent."""
        if size > _MOST or run.length < size or run.fd < 0 or not self._works:
            return False
        return os.fstat(run.fd).st_size >= run.offset + size

    def send(self, unique: int, run: Run) -> bool:
        """Answer a request with it. False where that did not work: then the request is still to be answered."""
        if self._in < 0 and not self._open():
            return False
        sent = self._fill(unique, run) and self._flush(wire.OUT_HEADER.size + run.length)
        if not sent:
            self.close()  # what is left in the pipe must not come before the next answer
        return sent

    def _open(self) -> bool:
        try:
            self._out, self._in = os.pipe()
            os.set_blocking(self._in, False)  # rather an error than waiting for ourselves
            fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, _PIPE)
        except OSError:  # EPERM, EMFILE, ENFILE: no more for this user. Whatever it is, it all works without a pipe.
            self.close()
            self._works = False
        return self._works

    def _fill(self, unique: int, run: Run) -> bool:
        """Header and data into the pipe; False where the file was cut meanwhile or cannot be spliced."""
        fd, offset, left = run
        os.write(self._in, wire.OUT_HEADER.pack(wire.OUT_HEADER.size + left, 0, unique))
        try:
            while left and (moved := os.splice(fd, self._in, left, offset_src=offset)):
                offset += moved
                left -= moved
        except OSError as error:
            if error.errno == errno.EINVAL:  # the file system has no splice(2)
                self._works = False
            return False  # of other errors, such as EIO, a plain read will tell
        return not left

    def _flush(self, length: int) -> bool:
        """What is in the pipe to the device."""
        try:
            os.splice(self._out, self._device, length)
        except OSError as error:
            # Nobody waits for it: interrupted meanwhile, or unmounted. Else, as with ENOMEM, it can still be answered.
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                return False
            self.close()
        return True

    def close(self) -> None:
        """Close the pipe, with what is in it."""
        for fd in (self._out, self._in):
            if fd >= 0:
                os.close(fd)
        self._out = self._in = -1
