"""The supervisor's side of the socket: `launcher.container.control` draws what is said."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from launcher.container import control
from launcher.errors import UfsError, describe
from launcher.sandbox.protocol import Channel, Message, PeerGone
from launcher.supervisor.loop import Loop


class Served(Protocol):
    """What can be asked of a supervisor. Each may raise `UfsError`, which is the answer then."""

    def signal(self, number: int) -> None:
        """Send it to the command."""

    def stop(self, number: int, grace: float | None, *, for_now: bool) -> None:
        """Send it, and SIGKILL after so many seconds; no policy is to start it again, or not by itself."""

    def pause(self) -> str:
        """Keep all its processes from going on; how."""

    def unpause(self) -> str:
        """Let them."""

    def flush(self) -> None:
        """Record what it has said."""

    def attach(self, output: int, error: int, wants_input: bool) -> Callable[[], None]:
        """Pass its streams on to two stream sockets, which are owned; what ends it."""

    def resize(self, size: bytes) -> None:
        """Its terminal has a new window size."""

    def execute(
        self,
        fields: dict[str, Any],
        descriptors: list[int],
        begun: Callable[[Callable[[int], None]], None],
        finished: Callable[[int], None],
    ) -> None:
        """Start a further command: `begun` gets a way to send it signals, `finished` its exit status."""

    @property
    def has_terminal(self) -> bool:
        """Whether it has one."""

    @property
    def last_status(self) -> int | None:
        """How it ended the last time, where it does not run just now."""


class Service:
    """Listens in a container's directory, and serves whoever connects, until `close`."""

    def __init__(self, loop: Loop, served: Served, listening: socket.socket) -> None:
        self._loop = loop
        self._served = served
        self.listening = listening
        self._connections: set[_Connection] = set()
        self._starter: _Connection | None = None
        loop.reads(listening.fileno(), self._on_connection)

    @property
    def busy(self) -> bool:
        """Whether somebody is connected."""
        return bool(self._connections)

    def adopt(self, channel: Channel) -> None:
        """Serve a connection that there is already, and what was said on it first."""
        message = channel.receive()
        self._starter = _Connection(self, self._loop, self._served, channel)
        self._connections.add(self._starter)
        self._starter.on_message(message)

    def drop(self, connection: _Connection) -> None:
        """It has ended."""
        self._connections.discard(connection)

    def stop_listening(self) -> None:
        """Nobody can connect any more; the connections that there are stay."""
        self._loop.forget(self.listening.fileno())
        self.listening.close()

    def tell_started(self) -> None:
        """To whoever started it."""
        if self._starter is not None:
            self._starter.say("started")

    def close(self, status: int, error: str | None, *, interrupted: bool) -> None:
        """To everybody: it has ended. Connections are closed."""
        for connection in list(self._connections):
            connection.say("exited", status=status, interrupted=interrupted, error=error)
            connection.close()

    def fail(self, error: UfsError) -> None:
        """To everybody: it could not be started."""
        for connection in list(self._connections):
            connection.say("error", text=str(error), status=error.status)
            connection.close()

    def _on_connection(self) -> None:
        with suppress(BlockingIOError, ConnectionAbortedError):  # who knocked is gone again
            end, _ = self.listening.accept()
            end.setblocking(True)
            if not control.is_ours(end):
                end.close()
                return
            self._connections.add(_Connection(self, self._loop, self._served, Channel(end, "command")))


class _Connection:
    """One command that asks."""

    def __init__(self, service: Service, loop: Loop, served: Served, channel: Channel) -> None:
        self._service = service
        self._loop = loop
        self._served = served
        self._channel = channel
        self._detach: Callable[[], None] = lambda: None
        self._open = True
        self._command: Callable[[int], None] | None = None
        loop.reads(channel.fileno(), lambda: self.on_message(channel.receive()))

    def say(self, kind: str, **fields: Any) -> None:
        """One packet, if anybody is left to read it."""
        if not self._open:
            return
        try:
            self._channel.send(kind, **fields)
        except PeerGone:
            self.close()

    def close(self) -> None:
        """Serve it no more."""
        if self._open:
            self._open = False
            self._loop.forget(self._channel.fileno())
            self._channel.close()
            self._detach()
            self._service.drop(self)

    def on_message(self, message: Message | None) -> None:
        """Answer; None is its end."""
        if message is None:
            self.close()
            return
        try:
            self._answer(message)
        except UfsError as error:
            self.say("error", text=str(error), status=error.status)
        except OSError as error:
            self.say("error", text=describe(error), status=1)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            for descriptor in message.descriptors:
                os.close(descriptor)
            self.say("error", text=f"not understood: {message.kind} ({error})", status=125)

    def _answer(self, message: Message) -> None:
        fields = message.fields
        match message.kind:
            case "signal":
                self._served.signal(int(fields["number"]))
                self.say("done")
            case "stop":
                self._served.stop(int(fields["number"]), fields["grace"], for_now=bool(fields.get("for_now")))
            case "wait":
                if self._served.last_status is not None:
                    self.say("exited", status=self._served.last_status, interrupted=False, error=None)
                # Else that comes as the answer when it has ended.
            case "pause":
                self.say("done", how=self._served.pause())
            case "unpause":
                self.say("done", how=self._served.unpause())
            case "flush":
                self._served.flush()
                self.say("done")
            case "attach":
                output, error = message.descriptors
                self._detach = self._served.attach(output, error, bool(fields["input"]))
                self.say("attached", terminal=self._served.has_terminal)
            case "exec":
                self._execute(message)
            case "exec-signal":
                if self._command is not None:
                    self._command(int(fields["number"]))
            case "resize":
                self._served.resize(bytes.fromhex(fields["size"]))
            case other:
                raise UfsError(f"a supervisor does not know {other!r}", 125)

    def _execute(self, message: Message) -> None:
        """The descriptors are the command's; this process has no use for them once it is forked."""

        def begun(send: Callable[[int], None]) -> None:
            self._command = send

        def finished(status: int) -> None:
            self._command = None
            self.say("finished", status=status)

        try:
            self._served.execute(message.fields, message.descriptors, begun, finished)
        finally:
            for descriptor in message.descriptors:
                os.close(descriptor)
            message.descriptors.clear()
        self.say("done")
