"""Watching the two processes of a container, from "go" until both have ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, Protocol

from launcher.errors import UfsError
from launcher.sandbox import ports, signals
from launcher.sandbox.protocol import Channel, Message, PeerGone


class Watcher(Protocol):
    """What the monitor asks of an event loop: `launcher.supervisor.loop.Loop` has it."""

    def reads(self, descriptor: int, action: Callable[[], None] | None) -> None: ...
    def forget(self, descriptor: int) -> None: ...
    def watches(self, descriptor: int) -> bool: ...
    def after(self, seconds: float, action: Callable[[], None]) -> object: ...


class Hooks(Protocol):
    """What a supervisor wants to know of its container."""

    def terminal(self, master: int) -> None:
        """With -t: the master of its terminal, owned by the receiver."""

    def prepared(self, created: list[str]) -> None:
        """It is complete, its command is about to begin; the names that were made as mount points."""

    def executed(self) -> None:
        """Its command has begun."""

    def ended(self) -> None:
        """Its command has ended and all processes of it; the file system server is still there."""


class Child:
    """A process to wait for, watched by its pidfd; `status` is as `os.waitstatus_to_exitcode` gives it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.handle = os.pidfd_open(pid)
        self.status: int | None = None

    def reap(self) -> int:
        """Collect the ended process."""
        self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.handle)
        return self.status

    def send(self, number: int) -> None:
        """A signal, unless it has been collected."""
        if self.status is None:
            os.kill(self.pid, number)  # cannot be another process: it was not waited for yet

    def kill(self) -> None:
        """SIGKILL, unless it has been collected."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)  # cannot be another process: it was not waited for yet


class Processes(NamedTuple):
    """A container's two processes and the channels to them. `to_init` is None once its command has begun.

    `binds` is where calls of bind(2) come (`launcher.sandbox.ports`), -1 where that is not known (yet).
    """

    init: Child
    server: Child
    to_init: Channel | None
    to_server: Channel
    binds: int = -1


class Monitor:
    """Watches both children and their channels, and delivers signals. One use."""

    def __init__(self, loop: Watcher, processes: Processes, hooks: Hooks) -> None:
        self._loop = loop
        self._init, self._server, self._to_init, self._to_server, listener = processes
        self._hooks = hooks
        self._failure: UfsError | None = None
        self._server_failure: UfsError | None = None
        self._delivery = signals.Delivery(self._init.pid)
        self._settling = False
        self._executed = self._to_init is None
        self.binds = -1
        if listener >= 0:
            self._answer_binds(listener)
        if self._to_init is not None:
            loop.reads(self._to_init.fileno(), self._on_init_packet)
        loop.reads(self._to_server.fileno(), self._on_server_packet)
        loop.reads(self._init.handle, self._on_init_end)
        loop.reads(self._server.handle, self._on_server_end)

    @property
    def over(self) -> bool:
        """Whether both have ended."""
        return self._init.status is not None and self._server.status is not None

    @property
    def ended(self) -> bool:
        """Whether the command has ended."""
        return self._init.status is not None

    @property
    def settled(self) -> bool:
        """Whether the command has begun and no signal is on its way to it."""
        return self._executed and not self._settling

    def deliver(self, number: int) -> None:
        """Send a signal to the command as if it were any other process. Once it has ended: nothing."""
        if self._init.status is None:
            self._delivery.send(number, running=self._executed)
            self._settle_later()

    def typed(self, interrupted: int | None) -> None:
        """See `signals.Delivery.typed`."""
        if self._init.status is None:
            self._delivery.typed(interrupted)
            self._settle_later()

    def kill(self) -> None:
        """End the container now."""
        self._init.kill()

    def fail(self, error: UfsError) -> None:
        """End the container for a reason that is not its own."""
        self._failure = self._failure or error
        self._init.kill()

    def outcome(self) -> int:
        """The command's exit status, 128+n for a signal, or -SIGINT: see `signals.Delivery.status`.

        Raises `UfsError` where the launcher failed.
        """
        failure = self._server_failure or self._failure
        if failure is not None:
            raise failure
        status = self._init.status
        assert status is not None
        return self._delivery.status(status)

    def _settle_later(self) -> None:
        pause = self._delivery.pause()
        if pause is not None and not self._settling:
            self._settling = True
            self._loop.after(pause / 1000, self._settle)

    def _settle(self) -> None:
        self._settling = False
        if self._init.status is None:
            self._delivery.settle()
            self._settle_later()

    def _on_init_packet(self) -> None:
        assert self._to_init is not None
        message = self._to_init.receive()
        if message is None:
            self._loop.forget(self._to_init.fileno())
            self._executed = True
            if self._failure is None:
                self._hooks.executed()
        elif message.kind == "terminal":
            self._hooks.terminal(message.descriptors[0])
        elif message.kind == "binds":
            self._answer_binds(message.descriptors[0])
        elif message.kind == "prepared":
            self._hooks.prepared(list(message.fields["created"]))
        else:
            self._failure = self._failure or _error(message, "container's first process")
            if message.kind != "error":
                self._init.kill()

    def _answer_binds(self, listener: int) -> None:
        self.binds = listener
        binder = ports.Binder(listener)

        def answer() -> None:
            if not binder.answer():
                self.binds = -1
                self._loop.forget(listener)
                os.close(listener)

        self._loop.reads(listener, answer)

    def _on_server_packet(self) -> None:
        message = self._to_server.receive()
        if message is None:
            self._loop.forget(self._to_server.fileno())
        else:
            self._server_failure = self._server_failure or _error(message, "file system server")
            self._init.kill()

    def _on_init_end(self) -> None:
        self._loop.forget(self._init.handle)
        self._init.reap()
        # What it said last counts, and comes before "over".
        while self._to_init is not None and self._loop.watches(self._to_init.fileno()):
            self._on_init_packet()
        self._hooks.ended()
        with suppress(PeerGone):
            self._to_server.send("over")

    def _on_server_end(self) -> None:
        self._loop.forget(self._server.handle)
        status = self._server.reap()
        # 1 follows an error packet or the end of its peers; everything else but 0 is a death of its own.
        if status not in (0, 1):
            how = f"was killed by signal {-status}" if status < 0 else f"failed with status {status}"
            self._server_failure = UfsError(f"the file system server {how}; the container was ended with it", 125)
        if status != 0:
            self._init.kill()


def _error(message: Message, peer: str) -> UfsError:
    if message.kind == "error":
        return UfsError(message.fields["text"], message.fields["status"])
    return UfsError(f"the {peer} sent {message.kind!r}, which is not due here", 125)
