"""Recording what a container says: `log` in its directory, the older parts `log.1`, `log.2` and so on.

The format is CRI's, which podman calls k8s-file, and which kubelet, crictl and every collector for
Kubernetes read. It was chosen over Docker's json-file because it keeps any bytes as they are and is written without
looking at each:

    2026-11-25T13:00:00.123456789Z stdout F a whole line
    2026-11-25T13:00:00.123456789Z stderr P a line that has not ended yet

What one read(2) brought shares one time. The text of a `P` is continued by the next record of the same stream.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from launcher.container.config import Log

if TYPE_CHECKING:
    from launcher.container.spool import Spool

NAME = "log"
_MOMENT = 0.2  # seconds
_FLOOD = 4 << 20  # bytes in a moment that are a flood, if
_LONGER = 3  # times as many bytes of log would come of them


def parts(directory: str) -> list[str]:
    """The files of the log that there are, the oldest first."""
    numbers = []
    for name in os.listdir(directory):
        head, dot, number = name.rpartition(".")
        if head == NAME and dot and number.isdecimal():
            numbers.append(int(number))
    older = [f"{directory}/{NAME}.{number}" for number in sorted(numbers, reverse=True)]
    return [path for path in [*older, f"{directory}/{NAME}"] if os.path.exists(path)]


class Writer:
    """Appends to the log of one container, and begins a new part when it is full. One writer at a time.

    A full disk does not stop the container: what could not be written is counted, and said in the log itself as soon
    as something can be written again.
    """

    def __init__(self, directory: str, options: Log, flooded: Callable[[], None] = lambda: None) -> None:
        """`flooded` is called when output begins to come faster than it can be written as lines: from then on it is
        kept as it comes (`spool`) until `settle` is called.
        """
        self._directory = directory
        self._flooded = flooded
        self._spool: Spool | None = None
        self._since, self._lately = 0.0, 0
        self._limit = options.max_size * options.max_file
        self._options = options
        self._file = -1
        self._size = 0
        self._lost = 0
        self._reason = ""

    def write(self, stream: bytes, data: bytes) -> None:
        """Record what came on `stream`, b"stdout" or b"stderr", now."""
        stamp = _stamp()
        try:
            if self._lost:
                note = f"ufs: {self._lost} bytes of output are missing here: {self._reason}\n".encode()
                self._append(records(stamp, b"stderr", note))
                self._lost = 0
            self._record(stamp, stream, data)
        except OSError as error:  # ENOSPC, EDQUOT, EIO: the container's own work goes on
            self._lost += len(data)
            self._reason = error.strerror or str(error)

    def calm(self) -> bool:
        """Whether little was said since this was asked last."""
        lately, self._lately = self._lately, 0
        return lately < _FLOOD

    def settle(self) -> None:
        """Make lines of what was kept as it came."""
        if self._spool is None:
            return
        self._spool.close()
        self._spool = None
        try:
            self._recover()
        except OSError as error:
            self._reason = error.strerror or str(error)

    def recover(self) -> None:
        """`settle` for what another writer left that was killed."""
        from launcher.container import spool

        if spool.left(self._directory):
            self._recover()
            self.close()

    def _recover(self) -> None:
        from launcher.container import spool

        for piece in spool.pieces(self._directory, self._limit):
            self._append(records(*piece))
        spool.remove(self._directory)

    def _record(self, stamp: bytes, stream: bytes, data: bytes) -> None:
        now = time.monotonic()
        if self._spool is None and now - self._since > _MOMENT:
            self._since, self._lately = now, 0
        self._lately += len(data)
        if self._spool is None and self._lately > _FLOOD:
            from launcher.container import spool

            if spool.length(data) > _LONGER * len(data):
                self._spool = spool.Spool(self._directory, self._limit)
                self._flooded()
        if self._spool is not None:
            self._spool.add(stamp, stream, data)
        else:
            self._append(records(stamp, stream, data))

    def close(self) -> None:
        """Let go of the file."""
        self.settle()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if self._file < 0:
                self._open()
            room = self._options.max_size - self._size
            take = len(view) if len(view) <= room else bytes(view[: max(room, 0)]).rfind(b"\n") + 1
            if not take:
                if self._size:
                    self._rotate()
                    continue
                take = data.index(b"\n", len(data) - len(view)) + 1 - (len(data) - len(view))  # longer than a part
            done = os.write(self._file, view[:take])
            self._size += done
            view = view[done:]

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(f"{self._directory}/{NAME}", flags, 0o600)
        self._size = os.fstat(self._file).st_size

    def _rotate(self) -> None:
        self.close()
        path = f"{self._directory}/{NAME}"
        for number in range(self._options.max_file - 1, 0, -1):
            with suppress(FileNotFoundError):  # not as many yet
                os.rename(f"{path}.{number - 1}" if number > 1 else path, f"{path}.{number}")
        if self._options.max_file == 1:
            os.unlink(path)


def records(stamp: bytes, stream: bytes, data: bytes) -> bytes:
    """`data` of one stream as lines of the log."""
    whole = b"%s %s F " % (stamp, stream)
    head, newline, rest = data.rpartition(b"\n")
    out = b""
    if newline:
        out = whole + head.replace(b"\n", b"\n" + whole) + b"\n"
    if rest:
        out += b"%s %s P %s\n" % (stamp, stream, rest)
    return out


def _stamp() -> bytes:
    """Now, as RFC 3339 with nanoseconds."""
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    return b"%s.%09dZ" % (time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode(), nanoseconds)
