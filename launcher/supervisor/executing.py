"""`exec`: a further command in a running container, watched by who asked for it."""

from __future__ import annotations

import errno
import os
import signal
from contextlib import ExitStack, suppress
from typing import NamedTuple

from launcher.container import control, state
from launcher.container.catalogue import Container
from launcher.container.keys import DetachKeys
from launcher.errors import UfsError
from launcher.sandbox import signals, terminal
from launcher.sandbox.protocol import Channel, PeerGone
from launcher.supervisor import streams
from launcher.supervisor.console import Input, Output
from launcher.supervisor.loop import Loop
from launcher.supervisor.sinks import Sink
from launcher.supervisor.streams import Streams

NONE: Streams = (-1, -1, -1)


class Wanted(NamedTuple):
    """What is to be executed. None: as the container's own command has it. `environment` adds to that."""

    argv: list[str]
    environment: dict[str, str] = {}
    working_directory: str | None = None
    user: str | None = None
    interactive: bool = False
    terminal: bool = False
    privileged: bool = False


def start(container: Container, wanted: Wanted, size: bytes, given: Streams) -> tuple[Channel, Channel]:
    """Have a command started in a running container: (the connection to its supervisor, the channel to the command)."""
    name = container.name
    seen = container.observe()
    if isinstance(seen, state.Paused):
        raise UfsError(f"container {name} is paused: unpause it first (ufs unpause {name})")
    connection = control.connect(container.directory) if isinstance(seen, state.Running) else None
    if connection is None:
        raise UfsError(f"container {name} is {state.name(seen)}, not running: start it first (ufs start {name})")
    ours, theirs = Channel.pair("command", "command in the container")
    nothing = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    sent = tuple(descriptor if descriptor >= 0 else nothing for descriptor in given)
    try:
        connection.send("exec", (theirs.fileno(), *sent), wanted=wanted._asdict(), size=size.hex())
        connection.expect("done")
    except PeerGone as error:
        raise UfsError(f"container {name} has just ended") from error
    finally:
        os.close(nothing)
        streams.close(given)
    theirs.close()
    return connection, ours


def run_detached(container: Container, wanted: Wanted) -> None:
    """Start a command and return when it has begun. UfsError where it could not be started."""
    connection, channel = start(container, wanted, b"", NONE)
    while (message := channel.receive()) is not None:
        if message.kind == "error":
            raise UfsError(message.fields["text"], message.fields["status"])
        for descriptor in message.descriptors:
            os.close(descriptor)  # nobody will use its terminal
    channel.close()
    connection.close()


def run(container: Container, wanted: Wanted, keys: str) -> int | None:
    """Run a command on this process's standard streams: its exit status; None when its terminal was left."""
    size = terminal.window_size(0) or terminal.window_size(1) if wanted.terminal else b""
    theirs, ours = NONE, NONE
    if not wanted.terminal:
        user = wanted.user if wanted.user is not None else container.config.user
        theirs, ours = streams.connected(user, interactive=wanted.interactive, passed=(0, 1, 2))
    connection, channel = start(container, wanted, size, theirs)
    return _Attended(connection, channel, wanted, keys, ours).run()


class _Attended:
    """A command, its terminal and our standard streams. One use."""

    def __init__(self, connection: Channel, channel: Channel, wanted: Wanted, keys: str, ends: Streams) -> None:
        self._loop = Loop()
        self._connection = connection
        self._status: int | None = None
        self._channel = channel
        self._wanted = wanted
        self._keys = DetachKeys(keys)
        self._failure: UfsError | None = None
        self._ends = ends
        self._outputs: list[Output] = []
        self._master = -1
        self._cleanup = ExitStack()

    def run(self) -> int | None:
        inbox = signals.Inbox()
        self._loop.reads(inbox.reader, lambda: self._on_signals(inbox.arrived()))
        self._loop.reads(self._channel.fileno(), self._on_packet)
        self._loop.reads(self._connection.fileno(), self._on_answer)
        for number in (1, 2):
            if self._ends[number] >= 0:
                self._show(self._ends[number], number)
        if self._ends[0] >= 0:
            typed = Input(self._loop)
            typed.begin(self._ends[0])
            typed.add(0, typed.end)
        with self._cleanup:
            while self._status is None and not self._keys.found:
                self._loop.turn()
            while any(output.waiting for output in self._outputs) and not self._keys.found:
                self._loop.turn()
        if self._failure is not None:
            raise self._failure
        return self._status

    def _on_packet(self) -> None:
        message = self._channel.receive()
        if message is None:
            self._loop.forget(self._channel.fileno())
        elif message.kind == "terminal":
            self._adopt(message.descriptors[0])
        elif message.kind == "error":
            self._failure = UfsError(message.fields["text"], message.fields["status"])

    def _on_answer(self) -> None:
        """It has ended, or its supervisor has, and with that the container."""
        message = self._connection.receive()
        self._loop.forget(self._connection.fileno())
        while self._loop.watches(self._channel.fileno()):
            self._on_packet()
        for output in self._outputs:
            output.drain()
        self._status = int(message.fields["status"]) if message is not None and message.kind == "finished" else 137

    def _adopt(self, master: int) -> None:
        self._master = master
        self._show(os.dup(master), 1)
        if self._wanted.interactive:
            if os.isatty(0):
                self._cleanup.enter_context(terminal.raw(0))
            typed = Input(self._loop, self._keys.pass_on)
            typed.begin(master)
            typed.add(0, lambda: None)

    def _show(self, source: int, number: int) -> None:
        def nobody_reads(error: OSError) -> None:
            if error.errno == errno.EPIPE and not self._wanted.terminal:  # its next write gets the same, and the signal
                output.close()
                return
            self._failure = UfsError(f"standard output: {error.strerror}", 1)
            self._send(signal.SIGKILL)

        output = Output(self._loop, b"", None)
        output.begin(source)
        output.add(Sink(self._loop, number, nobody_reads))
        self._outputs.append(output)

    def _on_signals(self, numbers: list[int]) -> None:
        for number in numbers:
            if number == signal.SIGWINCH:
                if self._master >= 0:
                    terminal.set_window_size(self._master, terminal.window_size(0) or terminal.window_size(1))
            elif number == signal.SIGTSTP:
                os.kill(os.getpid(), signal.SIGSTOP)
            elif number != signal.SIGCONT:
                self._send(number)

    def _send(self, number: int) -> None:
        with suppress(PeerGone):  # its end comes on the same way
            self._connection.send("exec-signal", number=number)
