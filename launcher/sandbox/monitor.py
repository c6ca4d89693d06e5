"""The launcher's loop: from "go" until the command and the file system server have ended."""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress

from launcher.errors import UfsError
from launcher.sandbox import signals, terminal
from launcher.sandbox.protocol import Channel, Message, PeerGone
from launcher.sandbox.spec import Spec

_CHUNK = 65536


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

    def kill(self) -> None:
        """SIGKILL, unless it has been collected."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)  # cannot be another process: it was not waited for yet


class Monitor:
    """Watches both children, their channels, signals and the terminal. One use."""

    def __init__(self, spec: Spec, init: Child, server: Child, inbox: signals.Inbox) -> None:
        self._spec = spec
        self._init = init
        self._server = server
        self._inbox = inbox
        self._poll = select.poll()
        self._actions: dict[int, Callable[[int], None]] = {}
        self._cleanup = ExitStack()
        self._failure: UfsError | None = None
        self._server_failure: UfsError | None = None
        self._delivery = signals.Delivery(init.pid)
        self._executed = False
        self._master = -1
        self._pending = b""
        self.created: list[str] = []

    def run(self, init_channel: Channel, server_channel: Channel, prepared: Callable[[], None]) -> int:
        """The command's exit status (128+n for a signal); `UfsError` where the launcher failed.

        `prepared` is called when the container is complete, just before the command begins.
        """
        self._prepared = prepared
        self._init_channel, self._server_channel = init_channel, server_channel
        self._watch(self._inbox.reader, self._on_signal)
        self._watch(init_channel.fileno(), self._on_init_packet)
        self._watch(server_channel.fileno(), self._on_server_packet)
        self._watch(self._init.handle, self._on_init_end)
        self._watch(self._server.handle, self._on_server_end)
        with self._cleanup:
            while self._init.status is None or self._server.status is None:
                for descriptor, events in self._poll.poll(self._delivery.pause()):
                    if descriptor in self._actions:  # an earlier action of this round may have dropped it
                        self._actions[descriptor](events)
                if self._init.status is None:
                    self._delivery.settle()
            self._drain()
        return self._outcome()

    def _watch(self, descriptor: int, action: Callable[[int], None]) -> None:
        self._actions[descriptor] = action
        self._poll.register(descriptor, select.POLLIN)

    def _forget(self, descriptor: int) -> None:
        del self._actions[descriptor]
        self._poll.unregister(descriptor)

    def _on_signal(self, _: int) -> None:
        for number in self._inbox.arrived():
            if self._init.status is not None:
                continue  # only the server is left, which writes out and ends
            if number == signal.SIGTSTP:
                signals.stop_together(self._init.pid)
            elif number == signal.SIGCONT:
                signals.resume(self._init.pid)
            elif number == signal.SIGWINCH and self._master >= 0:
                terminal.set_window_size(self._master, terminal.window_size(0) or terminal.window_size(1))
            else:
                self._delivery.send(number, running=self._executed)

    def _on_init_packet(self, _: int) -> None:
        message = self._init_channel.receive()
        if message is None:
            self._executed = True
            self._forget(self._init_channel.fileno())
        elif message.kind == "terminal":
            self._adopt(message.descriptors[0])
        elif message.kind == "prepared":
            self.created = list(message.fields["created"])
            self._prepared()
        else:
            self._failure = self._failure or _error(message, "container's first process")
            if message.kind != "error":
                self._init.kill()

    def _on_server_packet(self, _: int) -> None:
        message = self._server_channel.receive()
        if message is None:
            self._forget(self._server_channel.fileno())
        else:
            self._server_failure = self._server_failure or _error(message, "file system server")
            self._init.kill()

    def _on_init_end(self, _: int) -> None:
        self._forget(self._init.handle)
        self._init.reap()
        while self._init_channel.fileno() in self._actions:  # what it said last counts, and comes before "over"
            self._on_init_packet(0)
        with suppress(PeerGone):
            self._server_channel.send("over")

    def _on_server_end(self, _: int) -> None:
        self._forget(self._server.handle)
        status = self._server.reap()
        # 1 follows an error packet or the end of its peers; everything else but 0 is a death of its own.
        if status not in (0, 1):
            how = f"was killed by signal {-status}" if status < 0 else f"failed with status {status}"
            self._server_failure = UfsError(f"the file system server {how}; the container was ended with it", 125)
        if status != 0:
            self._init.kill()

    def _adopt(self, master: int) -> None:
        """From now on bytes go between the caller's terminal and the container's."""
        self._master = master
        os.set_blocking(master, False)
        self._watch(master, self._on_master)
        self._cleanup.callback(os.close, master)
        if self._spec.interactive:
            self._cleanup.enter_context(terminal.raw(0))
            self._watch(0, self._on_input)

    def _on_input(self, _: int) -> None:
        try:
            data = os.read(0, _CHUNK)
        except OSError as error:
            if error.errno != errno.EIO:  # the caller's terminal is gone
                raise
            data = b""
        if not data:
            self._forget(0)
            return
        self._pending += data
        self._flush()

    def _on_master(self, events: int) -> None:
        if events & select.POLLOUT:
            self._flush()
        if events & (select.POLLIN | select.POLLHUP) and not self._copy_output():
            self._forget(self._master)

    def _flush(self) -> None:
        """Write what the terminal takes; while it is full no more input is read, and output goes on."""
        try:
            written = os.write(self._master, self._pending)
        except BlockingIOError:
            written = 0
        except OSError as error:
            if error.errno != errno.EIO:  # no process has the terminal open any more
                raise
            written = len(self._pending)
        self._pending = self._pending[written:]
        waiting = bool(self._pending)
        if self._master in self._actions:
            self._poll.modify(self._master, select.POLLIN | (select.POLLOUT if waiting else 0))
        if 0 in self._actions:
            self._poll.modify(0, 0 if waiting else select.POLLIN)

    def _copy_output(self) -> bool:
        """Pass output on; False when there will be no more (EIO: all have closed the terminal)."""
        try:
            data = os.read(self._master, _CHUNK)
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return False
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(1, view) :]
        except OSError as error:  # whoever read it is gone, or the disk is full: nobody sees what the container does
            reason = f"standard output: {error.strerror}; the container was ended"
            self._failure = self._failure or UfsError(reason, 125)
            self._init.kill()
            return False
        return bool(data)

    def _drain(self) -> None:
        while self._master in self._actions:
            if not self._copy_output():
                self._forget(self._master)

    def _outcome(self) -> int:
        failure = self._server_failure or self._failure
        if failure is not None:
            raise failure
        status = self._init.status
        assert status is not None
        if self._delivery.killed_by is not None and status == -signal.SIGKILL:
            return 128 + self._delivery.killed_by
        return status if status >= 0 else 128 - status


def _error(message: Message, peer: str) -> UfsError:
    if message.kind == "error":
        return UfsError(message.fields["text"], message.fields["status"])
    return UfsError(f"the {peer} sent {message.kind!r}, which is not due here", 125)


def warn(line: str) -> None:
    """One line to the user that does not stop anything."""
    sys.stderr.write(f"ufs: {line}\n")
    sys.stderr.flush()
