"""Running the health checks of a container: one after the other, each a further command in it, as of `exec`."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Protocol

from launcher.container import health
from launcher.container.config import Health
from launcher.errors import UfsError
from launcher.sandbox.protocol import Channel
from launcher.supervisor.loop import Loop, Timer

_MOST = 4096  # bytes of output that are kept, as docker has it
_UNKNOWN = -1


class Execute(Protocol):
    """`Supervisor.execute`."""

    def __call__(
        self,
        fields: dict[str, Any],
        descriptors: list[int],
        begun: Callable[[Callable[[int], None]], None],
        finished: Callable[[int], None],
    ) -> None: ...


class Checks:
    """The checks of one run of a container, from its beginning or from where another program left them."""

    def __init__(self, loop: Loop, directory: str, check: Health, execute: Execute, started: float) -> None:
        self._loop = loop
        self._directory = directory
        self._check = check
        self._execute = execute
        self._started = started
        self._timer: Timer | None = None
        self._probe: _Probe | None = None
        self._known: dict[str, Any] = {}

    @property
    def busy(self) -> bool:
        """Whether one is under way."""
        return self._probe is not None

    def begin(self) -> None:
        """From its beginning."""
        self._known = health.fresh()
        health.publish(self._directory, self._known)
        self._plan(time.time())

    def resume(self) -> None:
        """From where its file says that they are."""
        self._known = health.read(self._directory) or health.fresh()
        last = time.time()
        with suppress(FileNotFoundError):
            last = os.stat(f"{self._directory}/{health.NAME}").st_mtime
        self._plan(last)

    def stop(self) -> None:
        """The container has ended."""
        if self._timer is not None:
            self._timer.cancel()
        if self._probe is not None:
            self._probe.abandon()
            self._probe = None

    def _plan(self, last: float) -> None:
        check, now = self._check, time.time()
        young = self._known["Status"] == health.STARTING and now - self._started < check.start_period
        pause = min(check.start_interval, check.interval) if young else check.interval
        self._timer = self._loop.after(min(max(last + pause - now, 0), pause), self._begin)

    def _begin(self) -> None:
        began = time.time()

        def done(status: int, output: str) -> None:
            self._probe = None
            result = {"Start": _moment(began), "End": _moment(time.time()), "ExitCode": status, "Output": output}
            self._known = health.after(self._check, self._known, result, began - self._started)
            with suppress(OSError):  # a full disk: a later one will say it
                health.publish(self._directory, self._known)
            self._plan(time.time())

        try:
            self._probe = _Probe(self._loop, self._check, done)
            self._probe.start(self._execute)
        except UfsError:  # it is paused, or just ending
            if self._probe is not None:
                self._probe.abandon()
                self._probe = None
            self._plan(time.time())


class _Probe:
    """One check. `done` is called with its exit status, -1 where it took too long, and its output."""

    def __init__(self, loop: Loop, check: Health, done: Callable[[int, str], None]) -> None:
        self._loop = loop
        self._check = check
        self._done = done
        self._said = bytearray()
        self._send: Callable[[int], None] | None = None
        self._late = False
        self._open = True

    def start(self, execute: Execute) -> None:
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._channel, theirs = Channel.pair("health check", "health check")
        nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._timer = self._loop.after(self._check.timeout, self._on_late)
        self._loop.reads(self._reader, self._on_output)
        wanted: dict[str, Any] = {
            "argv": self._check.argv,
            "environment": {},
            "working_directory": None,
            "user": None,
            "interactive": False,
            "terminal": False,
            "privileged": False,
        }
        try:
            execute(
                {"wanted": wanted, "size": ""},
                [theirs.fileno(), nothing, writer, writer],
                self._on_begun,
                self._on_finished,
            )
        finally:
            theirs.close()
            os.close(nothing)
            os.close(writer)

    def abandon(self) -> None:
        """Nobody wants to know any more."""
        if self._open:
            self._open = False
            self._timer.cancel()
            self._loop.forget(self._reader)
            os.close(self._reader)
            self._channel.close()

    def _on_begun(self, send: Callable[[int], None]) -> None:
        self._send = send
        if self._late:
            send(signal.SIGKILL)

    def _on_late(self) -> None:
        self._late = True
        if self._send is not None:
            self._send(signal.SIGKILL)

    def _on_output(self) -> None:
        with suppress(BlockingIOError):
            data = os.read(self._reader, 1 << 16)
            self._said += data[: _MOST - len(self._said)]
            if not data:
                self._loop.forget(self._reader)

    def _on_finished(self, status: int) -> None:
        if not self._open:
            return
        self._on_output()  # what is there; who was left behind by the check has nothing to say
        output = self._said.decode(errors="replace")
        message = self._channel.receive()
        self.abandon()
        if self._late:
            took = f"Health check exceeded timeout ({self._check.timeout:g}s)"
            self._done(_UNKNOWN, f"{took}: {output}" if output else took)
        elif message is not None and message.kind == "error":
            self._done(message.fields["status"], message.fields["text"])
        else:
            self._done(status, output)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
