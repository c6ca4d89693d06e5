"""`exec`: a further command in a running container, watched by who asked for it."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack, suppress
from typing import NamedTuple

from launcher.container import config, lock, state
from launcher.container.catalogue import Container
from launcher.container.keys import DetachKeys
from launcher.errors import UfsError
from launcher.sandbox import capabilities, enter, signals, terminal
from launcher.sandbox.monitor import Child
from launcher.sandbox.protocol import Channel, PeerGone
from launcher.sandbox.spec import Spec
from launcher.supervisor.console import Input, Output
from launcher.supervisor.loop import Loop
from launcher.supervisor.sinks import Sink


class Wanted(NamedTuple):
    """What is to be executed. None: as the container's own command has it. `environment` adds to that."""

    argv: list[str]
    environment: dict[str, str] = {}
    working_directory: str | None = None
    user: str | None = None
    interactive: bool = False
    terminal: bool = False
    privileged: bool = False


def start(container: Container, wanted: Wanted, size: bytes, *, detached: bool) -> tuple[int, Channel]:
    """Make the process of a command in a running container: (its pid, its channel, see `launcher.sandbox.enter`)."""
    process, pid = _first_process(container)
    try:
        return enter.start(process, pid, _spec(container, wanted, size, detached))
    finally:
        os.close(process)


def run_detached(container: Container, wanted: Wanted) -> None:
    """Start a command and return when it has begun. UfsError where it could not be started."""
    _, channel = start(container, wanted, b"", detached=True)
    channel.send("go")
    while (message := channel.receive()) is not None:
        if message.kind == "error":
            raise UfsError(message.fields["text"], message.fields["status"])
        for descriptor in message.descriptors:
            os.close(descriptor)  # nobody will use its terminal
    channel.close()


def run(container: Container, wanted: Wanted, keys: str) -> int | None:
    """Run a command on this process's standard streams: its exit status; None when its terminal was left."""
    size = terminal.window_size(0) or terminal.window_size(1) if wanted.terminal else b""
    pid, channel = start(container, wanted, size, detached=False)
    return _Attended(pid, channel, wanted, keys).run()


class _Attended:
    """A command, its terminal and our standard streams. One use."""

    def __init__(self, pid: int, channel: Channel, wanted: Wanted, keys: str) -> None:
        self._loop = Loop()
        self._child = Child(pid)
        self._channel = channel
        self._wanted = wanted
        self._keys = DetachKeys(keys)
        self._failure: UfsError | None = None
        self._output: Output | None = None
        self._master = -1
        self._cleanup = ExitStack()

    def run(self) -> int | None:
        inbox = signals.Inbox()
        self._loop.reads(inbox.reader, lambda: self._on_signals(inbox.arrived()))
        self._loop.reads(self._channel.fileno(), self._on_packet)
        self._loop.reads(self._child.handle, self._on_end)
        with suppress(PeerGone):  # it was killed, which its end tells
            self._channel.send("go")
        with self._cleanup:
            while self._child.status is None and not self._keys.found:
                self._loop.turn()
            while self._output is not None and self._output.waiting and not self._keys.found:
                self._loop.turn()
        if self._failure is not None:
            raise self._failure
        status = self._child.status
        return status if status is None or status >= 0 else 128 - status

    def _on_packet(self) -> None:
        message = self._channel.receive()
        if message is None:
            self._loop.forget(self._channel.fileno())
        elif message.kind == "terminal":
            self._adopt(message.descriptors[0])
        elif message.kind == "error":
            self._failure = UfsError(message.fields["text"], message.fields["status"])

    def _on_end(self) -> None:
        self._loop.forget(self._child.handle)
        self._child.reap()
        while self._loop.watches(self._channel.fileno()):
            self._on_packet()
        if self._output is not None:
            self._output.drain()

    def _adopt(self, master: int) -> None:
        self._master = master
        self._output = Output(self._loop, b"", None)
        self._output.begin(os.dup(master))
        self._output.add(Sink(self._loop, 1, self._nobody_reads))
        if self._wanted.interactive:
            if os.isatty(0):
                self._cleanup.enter_context(terminal.raw(0))
            typed = Input(self._loop, self._keys.pass_on)
            typed.begin(master)
            typed.add(0, lambda: None)

    def _nobody_reads(self, error: OSError) -> None:
        self._failure = UfsError(f"standard output: {error.strerror}", 1)
        self._child.kill()

    def _on_signals(self, numbers: list[int]) -> None:
        for number in numbers:
            if number == signal.SIGWINCH:
                if self._master >= 0:
                    terminal.set_window_size(self._master, terminal.window_size(0) or terminal.window_size(1))
            elif number == signal.SIGTSTP:
                os.kill(os.getpid(), signal.SIGSTOP)
            elif number != signal.SIGCONT and self._child.status is None:
                os.kill(self._child.pid, number)


def _first_process(container: Container) -> tuple[int, int]:
    """(pidfd, pid) of process 1 of a running container. UfsError where it does not run."""
    name = container.name
    seen = container.observe()
    if isinstance(seen, state.Paused):
        raise UfsError(f"container {name} is paused: unpause it first (ufs unpause {name})")
    if not isinstance(seen, state.Running):
        raise UfsError(f"container {name} is {state.name(seen)}, not running: start it first (ufs start {name})")
    gone = UfsError(f"container {name} has just ended")
    try:
        process = os.pidfd_open(seen.pid)
    except ProcessLookupError as error:
        raise gone from error
    # From here on the number cannot get another meaning; whether it had one before is told by these two.
    if state.ticks(seen.pid) != seen.ticks or not lock.held(container.directory):
        os.close(process)
        raise gone
    return process, seen.pid


def _spec(container: Container, wanted: Wanted, size: bytes, detached: bool) -> Spec:
    made = container.config
    streams = (-1, -1, -1) if detached else (0 if wanted.interactive else -1, 1, 2)
    spec = config.spec(made, container.directory, streams, size)
    kept = frozenset(capabilities.NUMBERS.values()) if wanted.privileged else spec.capabilities
    environment = {**({"TERM": "xterm"} if wanted.terminal else {}), **made.environment, **wanted.environment}
    return spec._replace(
        argv=wanted.argv,
        environment=environment,
        working_directory=wanted.working_directory or made.working_directory,
        user=wanted.user if wanted.user is not None else made.user,
        capabilities=kept,
        interactive=wanted.interactive,
        terminal=wanted.terminal,
    )
