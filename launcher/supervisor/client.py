"""The command that is attached to a container: its own standard streams against those of the container."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import ExitStack
from typing import NamedTuple

from launcher.container.keys import DetachKeys
from launcher.errors import UfsError
from launcher.sandbox import signals, terminal
from launcher.sandbox.protocol import Channel, PeerGone
from launcher.supervisor.console import Input, Output
from launcher.supervisor.loop import Loop
from launcher.supervisor.sinks import Sink

_NOT_PROXIED = (signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)
_INTERRUPT = b"\x03"


class Left(NamedTuple):
    """How it ended: with the container's exit status and reason, or by the detach keys (`status` is None).

    -SIGINT: it was interrupted, and this command is to die of it.
    """

    status: int | None
    error: str | None = None


class Client:
    """One attached command. `begin` asks, `run` stays until the end."""

    def __init__(self, channel: Channel, *, wants_input: bool, keys: str, proxy: bool) -> None:
        self._channel = channel
        self._wants_input = wants_input
        self._keys = DetachKeys(keys)
        self._proxy = proxy
        self._left: Left | None = None
        self._interrupt_typed = False
        self._loop = Loop()
        self._outputs: list[Output] = []

    def begin(self) -> None:
        """Ask, and have the streams connected; nothing is shown before `run`."""
        self._mine, output = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._errors, error = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._channel.send("attach", (output.fileno(), error.fileno()), input=self._wants_input)
        output.close()
        error.close()
        self._terminal = bool(self._channel.expect("attached").fields["terminal"])
        if self._terminal:
            self._resize()

    def run(self) -> Left:
        """Pass everything on until the container has ended or the detach keys were typed."""
        inbox = signals.Inbox()
        self._loop.reads(inbox.reader, lambda: self._on_signals(inbox.arrived()))
        self._loop.reads(self._channel.fileno(), self._on_packet)
        with ExitStack() as cleanup:
            for end, number in ((self._mine, 1), (self._errors, 2)):
                shown = Output(self._loop, b"", None)
                shown.begin(os.dup(end.fileno()))
                shown.add(Sink(self._loop, number, self._nobody_reads))
                self._outputs.append(shown)
            if self._wants_input:
                if self._terminal and os.isatty(0):
                    cleanup.enter_context(terminal.raw(0))
                self._input = Input(self._loop, self._on_typed)
                self._input.begin(self._mine.fileno())
                self._input.add(0, lambda: self._mine.shutdown(socket.SHUT_WR))
            while self._left is None or (self._left.status is not None and self._unshown()):
                self._loop.turn()
        self._channel.close()
        if self._left.status == -signal.SIGINT and self._interrupt_typed:
            signals.share_interrupt()
        return self._left

    def _unshown(self) -> bool:
        return any(output.open or output.waiting for output in self._outputs)

    def _on_packet(self) -> None:
        message = self._channel.receive()
        if message is None:
            self._loop.forget(self._channel.fileno())
            self._left = self._left or Left(137, "its supervisor was killed")
        elif message.kind == "exited":
            status, error = message.fields["status"], message.fields["error"]
            self._left = Left(-signal.SIGINT if message.fields["interrupted"] else status, error)
        elif message.kind == "error":
            raise UfsError(message.fields["text"], message.fields["status"])

    def _on_typed(self, data: bytes) -> bytes:
        self._interrupt_typed = _INTERRUPT in data
        found = self._keys.pass_on(data)
        if self._keys.found:
            self._left = Left(None)
        return found

    def _nobody_reads(self, error: OSError) -> None:
        for output in self._outputs:
            output.close()
        self._left = self._left or Left(1, f"standard output: {error.strerror}")

    def _on_signals(self, numbers: list[int]) -> None:
        for number in numbers:
            if number == signal.SIGWINCH:
                self._resize()
            elif number == signal.SIGTSTP:
                os.kill(os.getpid(), signal.SIGSTOP)
            elif number not in _NOT_PROXIED:
                self._on_signal(number)

    def _on_signal(self, number: int) -> None:
        if not self._proxy:
            self._left = Left(-number if number == signal.SIGINT else 128 + number)
            return
        try:
            self._channel.send("signal", number=number)
        except PeerGone:
            return  # its end comes on the same way

    def _resize(self) -> None:
        size = terminal.window_size(0) or terminal.window_size(1)
        if self._terminal and size:
            try:
                self._channel.send("resize", size=size.hex())
            except PeerGone:
                return  # its end comes on the same way
