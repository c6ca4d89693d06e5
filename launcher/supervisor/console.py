"""Standard streams of one container: its output to the log and to whoever is attached, their input to it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping

from launcher.container import logs
from launcher.container.config import Log
from launcher.supervisor.loop import Loop
from launcher.supervisor.sinks import Sink

_LOOK, _LONGEST_FLOOD = 0.2, 10.0  # seconds between looks whether a flood of output is over; how long it may last
_CHUNK = 1 << 18


class Output:
    """One stream: read when all have taken what came before, recorded, and passed on to each sink.

    Sinks can be added before there is anything to read from.
    """

    def __init__(self, loop: Loop, stream: bytes, log: logs.Writer | None) -> None:
        self._loop = loop
        self._source = -1
        self._stream = stream
        self._log = log
        self._sinks: list[Sink] = []
        self.open = False

    def begin(self, source: int) -> None:
        """Read from `source`, which is owned."""
        os.set_blocking(source, False)
        self._source = source
        self.open = True
        self._loop.reads(source, self._on_readable)

    @property
    def source(self) -> int:
        """What it reads from; -1 where there is nothing to read (any more)."""
        return self._source if self.open else -1

    @property
    def waiting(self) -> bool:
        """Whether somebody has not taken everything yet."""
        return any(sink.waiting for sink in self._sinks)

    def add(self, sink: Sink) -> None:
        """Pass on to `sink` what comes from now on."""
        self._sinks.append(sink)

    def remove(self, sink: Sink) -> None:
        """Forget a sink, which is closed."""
        if sink in self._sinks:
            self._sinks.remove(sink)
            sink.close()
            self._resume()

    def drain(self) -> None:
        """Read what is left, whoever has still to take it: nothing writes any more. The source is closed then."""
        while self.open and self._pump():
            pass
        self.close()

    def catch_up(self) -> None:
        """Read what is there, as far as it is taken."""
        while self.open and not self.waiting and self._pump():
            pass

    def close(self) -> None:
        """Read no more: whoever writes to it finds its reader gone."""
        if self.open:
            self.open = False
            self._loop.reads(self._source, None)
            os.close(self._source)

    def _on_readable(self) -> None:
        self._pump()

    def _pump(self) -> bool:
        """Pass on what is there; False when there is nothing now."""
        try:
            data = os.read(self._source, _CHUNK)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in (errno.EIO, errno.ECONNRESET):  # all have closed the terminal; the supervisor ended
                raise
            data = b""
        if not data:
            self.close()
            return False
        if self._log is not None:
            self._log.write(self._stream, data)
        for sink in list(self._sinks):
            sink.put(data, self._resume)
        if self.open and self.waiting:
            self._loop.reads(self._source, None)
        return True

    def _resume(self) -> None:
        if self.open and not self.waiting:
            self._loop.reads(self._source, self._on_readable)


class Input:
    """Standard input: what comes from any of its sources. While it is full, no more is read from them.

    It goes to the write end of a pipe or the master of a terminal, once there is one; what is done to that at the end
    of a source is up to `at_end`, which is called when all that came before has been written. `passed`
    says what of that is passed on.
    """

    def __init__(self, loop: Loop, passed: Callable[[bytes], bytes] = lambda data: data) -> None:
        self._loop = loop
        self._target = -1
        self._passed = passed
        self._pending = b""
        self._sources: dict[int, Callable[[], None]] = {}
        self._ended: list[Callable[[], None]] = []
        self._alive = True

    def begin(self, target: int) -> None:
        """Write to `target`, which is owned where it is closed by `end`."""
        os.set_blocking(target, False)
        self._target = target
        for source in self._sources:
            self._watch(source)

    @property
    def target(self) -> int:
        """What it writes to; -1 where nothing is written (any more)."""
        return self._target if self._alive else -1

    @property
    def waiting(self) -> bool:
        """Whether the container has not taken everything yet."""
        return bool(self._pending)

    def add(self, source: int, at_end: Callable[[], None]) -> None:
        """Read from `source`, which is not owned, until its end."""
        self._sources[source] = at_end
        if self._target >= 0 and not self._pending:
            self._watch(source)

    def remove(self, source: int) -> None:
        """Read from `source` no more."""
        if self._sources.pop(source, None) is not None:
            self._loop.reads(source, None)

    def stop(self) -> None:
        """Nothing can be written any more: what comes is thrown away."""
        self._alive = False
        self._pending = b""
        self._loop.writes(self._target, None)

    def end(self) -> None:
        """Nothing more is written, and the container sees the end of its input."""
        if self._alive:
            self.stop()
            os.close(self._target)

    def _watch(self, source: int) -> None:
        self._loop.reads(source, lambda: self._on_source(source))

    def _on_source(self, source: int) -> None:
        try:
            data = os.read(source, _CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in (errno.EIO, errno.ECONNRESET):  # the caller's terminal, or who was attached, is gone
                raise
            data = b""
        if not data:
            at_end = self._sources[source]
            self.remove(source)
            self._ended.append(at_end)
        elif self._alive:
            self._pending += self._passed(data)
        self._flush()

    def _flush(self) -> None:
        """Write what is taken."""
        try:
            while self._pending:
                self._pending = self._pending[os.write(self._target, self._pending) :]
        except BlockingIOError:
            self._loop.writes(self._target, self._flush)
            for source in self._sources:
                self._loop.reads(source, None)
            return
        except OSError as error:
            if error.errno not in (errno.EIO, errno.EPIPE):  # no process has it open any more
                raise
            self.stop()
        self._loop.writes(self._target, None)
        for source in self._sources:
            self._watch(source)
        while self._ended:
            self._ended.pop()()


def attach(
    loop: Loop,
    outputs: Mapping[str, Output],
    typed: Input,
    ends: tuple[int, int],
    on_input_end: Callable[[], None] | None,
) -> Callable[[], None]:
    """Pass streams on to two stream sockets, `ends`, which are owned: for standard output (of a terminal for all) and
    error. The input comes from the first, unless `on_input_end` is None. The returned function ends it.
    """
    output, error = ends
    os.set_blocking(output, False)
    attached: list[tuple[Output, Sink]] = []

    def gone() -> None:
        for stream, sink in attached:
            stream.remove(sink)
        attached.clear()

    for name, stream in outputs.items():
        sink = Sink(loop, output if name == "stdout" else error, lambda _: gone())
        stream.add(sink)
        attached.append((stream, sink))
    os.close(error)
    if on_input_end is not None:
        typed.add(output, on_input_end)

    def detach() -> None:
        typed.remove(output)
        gone()
        os.close(output)

    return detach


def log(loop: Loop, directory: str, wanted: Log) -> logs.Writer | None:
    """The log of a container; None where it has none. A flood of output becomes lines of it when it is over, and now
    and then also while it goes on, for who follows the log.
    """
    if wanted.driver == "none":
        return None
    looks = 0

    def flooded() -> None:
        nonlocal looks
        looks = 0
        loop.after(_LOOK, look)

    def look() -> None:
        nonlocal looks
        looks += 1
        if writer.calm() or looks * _LOOK > _LONGEST_FLOOD:
            writer.settle()
        else:
            loop.after(_LOOK, look)

    writer = logs.Writer(directory, wanted, flooded)
    return writer
