"""The supervisor of one container: from its first process to the record of its end.

It is the process that started the container: in the foreground the command itself, in the background a child of it
(`background`). It holds the lock, the log, the terminal and the socket; everything else is files.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from launcher.container import config, state
from launcher.container.config import Config
from launcher.errors import UfsError, describe
from launcher.sandbox import signals, terminal
from launcher.sandbox.monitor import Monitor, Processes
from launcher.sandbox.protocol import Channel
from launcher.supervisor import console
from launcher.supervisor.console import Input, Output
from launcher.supervisor.loop import Loop, Timer
from launcher.supervisor.service import Service
from launcher.supervisor.sinks import Sink

if TYPE_CHECKING:
    from launcher.supervisor.checking import Checks
    from launcher.supervisor.entering import Commands


class Supervisor:
    """Watches one run of a container and serves who asks for something. One use: `run`.

    `local`: its own standard streams are the caller's, and the container's.
    """

    last_status: int | None = None  # it runs

    def __init__(self, directory: str, made: Config, before: state.Begun, *, local: bool) -> None:
        self.loop = Loop()
        self.directory = directory
        self._made = made
        self._local = local
        self._restarts, self._delay = before.restarts, before.delay
        self._created = before.created
        self._log = console.log(self.loop, directory, made.log)
        names = ("stdout",) if made.terminal else ("stdout", "stderr")
        self._outputs = {name: Output(self.loop, name.encode(), self._log) for name in names}
        self._input = Input(self.loop, self._on_typed)
        self._master = -1
        self._size = b""
        self._running: state.Running | None = None
        self._how_paused = ""
        self._commands: Commands | None = None
        self._service: Service | None = None
        self.adopted = False
        self._begun = False
        self._checks: Checks | None = None
        self.stopped = False  # whether somebody has asked for its end
        self._leaving = False
        self._grace: Timer | None = None
        self._cleanup = ExitStack()

    def listen(self, listening: socket.socket) -> None:
        """Serve whoever connects."""
        self._service = Service(self.loop, self, listening)

    def adopt(self, channel: Channel) -> None:
        """Serve a connection that there is already, and answer the first that is asked on it."""
        assert self._service is not None
        self.adopted = True
        self._service.adopt(channel)

    def stop_listening(self) -> None:
        """Nobody can connect any more; who has stays connected."""
        if self._service is not None:
            self._service.stop_listening()

    def close(self, status: int, failure: UfsError | None) -> None:
        """Tell everybody who is connected how it ended."""
        if self._service is None:
            return
        if failure is not None and not self._begun:
            self._service.fail(failure)
        else:
            code = status if status >= 0 else 128 - status
            self._service.close(code, str(failure) if failure else None, interrupted=status < 0)

    def run(self, processes: Processes, streams: tuple[int, int, int], first: Callable[[], None]) -> int:
        """Until both processes have ended: the exit status. UfsError where the launcher failed.

        `streams` are our ends of its standard streams, -1 for those that we have no part in. `first` is called when
        everything is in place, to let the container go.
        """
        self._inbox = signals.Inbox()
        self._processes = processes
        self.monitor = Monitor(self.loop, processes, self)
        self.loop.reads(self._inbox.reader, self._on_signal)
        self._connect(streams)
        with self._cleanup:
            first()
            while not self.monitor.over:
                self.loop.turn()
        return self.monitor.outcome()

    def flush_outputs(self) -> None:
        """Until everybody attached has taken everything, or is gone."""
        while any(output.waiting for output in self._outputs.values()):
            self.loop.turn()

    @property
    def listening(self) -> socket.socket:
        """Where it is served."""
        assert self._service is not None
        return self._service.listening

    @property
    def delay(self) -> float:
        """Seconds that it waited before this run; 0 where a command started it."""
        return self._delay

    @property
    def may_run_again(self) -> bool:
        """Whether its policy is to be asked: it is in the background, has run, and nobody has asked for its end.

        Of one that is removed when it ends nothing is left, nor the policy to be read.
        """
        return self._begun and not (self._local or self.stopped or self._leaving or self._made.remove)

    def exited(self, status: int, why: str | None) -> state.Exited:
        """Its end, as of now."""
        started = self._running.at if self._running else 0.0
        return state.Exited(
            time.time(), status, why, self._created, started, self._restarts, self.stopped
        )  # fmt: skip

    # What the monitor tells

    def terminal(self, master: int) -> None:
        """From now on bytes go between its terminal and whoever is attached."""
        self._master = master
        terminal.set_window_size(master, self._size)
        self._cleanup.callback(os.close, master)
        self._outputs["stdout"].begin(os.dup(master))
        self._input.begin(master)
        if self._local:
            self._outputs["stdout"].add(Sink(self.loop, 1, self._cannot_show))

    def prepared(self, created: list[str]) -> None:
        """Write down that it runs: from now on other processes may enter it."""
        self._created = list(dict.fromkeys([*self._created, *created]))
        init, server = self._processes.init.pid, self._processes.server.pid
        self._running = state.Running(
            time.time(), init, server, self._created, state.ticks(init), state.boot_id(),
            self._restarts, self._delay,
        )  # fmt: skip
        checks = self._checked()
        try:
            if checks is not None:
                checks.begin()
            state.move(self.directory, self._running)
        except OSError as error:
            self.monitor.fail(UfsError(f"cannot record that it runs: {describe(error)}", 125))

    def executed(self) -> None:
        """Its command has begun."""
        self._begun = True
        if self._service is not None:
            self._service.tell_started()

    def ended(self) -> None:
        """Read what is left of its output: nobody writes to it any more."""
        for output in self._outputs.values():
            output.drain()
        self._input.stop()
        if self._checks is not None:
            self._checks.stop()
        if self._log is not None:
            self._log.close()
        if self._grace is not None:
            self._grace.cancel()

    # What it is at rest, and how it goes on from there: `handover`

    def undisturbed(self) -> bool:
        """Whether nobody waits for anything, and nothing is known here that no file or descriptor says."""
        waiting = self._input.waiting or any(output.waiting for output in self._outputs.values())
        asked = (
            self._service is None
            or (self._commands is not None and self._commands.starting)
            or self._service.busy
            or self._grace is not None
            or (self._checks is not None and self._checks.busy)
            or self._inbox.waiting()
        )
        return self._running is not None and self.monitor.settled and not (waiting or asked)

    def handed(self) -> dict[str, Any]:
        """What a successor needs that is not in the container's files."""
        assert self._service is not None
        descriptors = {
            "server": self._processes.to_server.fileno(),
            "listening": self._service.listening.fileno(),
            "binds": self.monitor.binds,
            "master": self._master,
            "input": -1 if self._made.terminal else self._input.target,
            "stdout": -1 if self._made.terminal else self._outputs["stdout"].source,
            "stderr": -1 if self._made.terminal else self._outputs["stderr"].source,
        }
        return {
            "directory": self.directory,
            "descriptors": descriptors,
            "commands": self._commands.pids if self._commands is not None else [],
            "stopped": self.stopped,
            "leaving": self._leaving,
        }

    def take_over(self, known: state.Running | state.Paused, handed: dict[str, Any], master: int) -> None:
        """Go on where this process was before, with what it has `handed`."""
        commands = handed["commands"]  # further ones that it is the parent of
        if commands:
            from launcher.supervisor import entering

            self._commands = entering.Commands(self.loop)
        for pid in commands:
            assert self._commands is not None
            self._commands.watch(pid, lambda status: None)
        self._begun = True
        self.stopped, self._leaving = handed["stopped"], handed["leaving"]
        self._running = state.Running(*known[:8])
        self._how_paused = known.how if isinstance(known, state.Paused) else ""
        if master >= 0:
            self.terminal(master)
        checks = self._checked()
        if checks is not None:
            checks.resume()

    # What can be asked of it

    def signal(self, number: int) -> None:
        """Send it to the command."""
        self.stopped = self.stopped or config.ends(self._made, number)
        self._send(number)

    def _send(self, number: int) -> None:
        if number == signal.SIGKILL:
            self.monitor.kill()
        else:
            self.monitor.deliver(number)

    def stop(self, number: int, grace: float | None, *, for_now: bool) -> None:
        """Send it, and SIGKILL after so many seconds; a paused container goes on first, or it could do neither."""
        self._leaving = self._leaving or for_now
        self.stopped = self.stopped or not for_now
        if grace is not None and not self.monitor.ended:
            self._grace = self.loop.after(grace, self.monitor.kill)
        self._send(number)
        if self._how_paused:
            self.unpause()

    def pause(self) -> str:
        """Keep all its processes from going on."""
        running = self._need_running()
        if self._how_paused:
            raise UfsError(f"container {self._made.name} is paused already", 1)
        from launcher.supervisor import pausing

        pausing.stop(running.pid)
        try:
            state.move(self.directory, state.Paused(*running, "signals"))
        except OSError:
            pausing.proceed(running.pid)
            raise
        self._how_paused = "signals"
        return self._how_paused

    def unpause(self) -> str:
        """Let them."""
        running = self._need_running()
        if not self._how_paused:
            raise UfsError(f"container {self._made.name} is not paused", 1)
        from launcher.supervisor import pausing

        pausing.proceed(running.pid)
        how, self._how_paused = self._how_paused, ""
        state.move(self.directory, running)
        return how

    def flush(self) -> None:
        """Record what it has said."""
        for output in self._outputs.values():
            output.catch_up()
        if self._log is not None:
            self._log.settle()

    def attach(self, output: int, error: int, wants_input: bool) -> Callable[[], None]:
        """Pass its streams on to two stream sockets until the returned function is called."""
        on_end = self._on_input_end if wants_input else None
        return console.attach(self.loop, self._outputs, self._input, (output, error), on_end)

    def resize(self, size: bytes) -> None:
        """Its terminal has a new window size."""
        self._size = size
        if self._master >= 0:
            terminal.set_window_size(self._master, size)

    def execute(
        self,
        fields: dict[str, Any],
        descriptors: list[int],
        begun: Callable[[Callable[[int], None]], None],
        finished: Callable[[int], None],
    ) -> None:
        """Start a further command in it."""
        running = self._need_running()
        if self._how_paused:
            raise UfsError(f"container {self._made.name} is paused", 1)
        from launcher.supervisor import entering

        helper = entering.helper(self._made, self.directory, running.pid, fields, descriptors)
        self._commands = self._commands or entering.Commands(self.loop)
        self._commands.start(helper, lambda child: begun(child.send), finished)

    @property
    def has_terminal(self) -> bool:
        """Whether it has one."""
        return self._made.terminal

    # The rest

    def _checked(self) -> Checks | None:
        """What looks after its health, if anything does."""
        if self._made.health is not None and self._running is not None:
            from launcher.supervisor.checking import Checks

            self._checks = Checks(self.loop, self.directory, self._made.health, self.execute, self._running.at)
        return self._checks

    def _connect(self, streams: tuple[int, int, int]) -> None:
        for name, source in (("stdout", streams[1]), ("stderr", streams[2])):
            if source >= 0:
                self._outputs[name].begin(source)
                if self._local:
                    self._outputs[name].add(Sink(self.loop, 1 if name == "stdout" else 2, self._reader_gone(name)))
        if streams[0] >= 0:
            self._input.begin(streams[0])
            if self._local:
                self._input.add(0, self._input.end)

    def _reader_gone(self, name: str) -> Callable[[OSError], None]:
        def gone(error: OSError) -> None:
            if error.errno == errno.EPIPE:  # its next write gets the same, and the signal
                self._outputs[name].close()
            else:
                self._cannot_show(error)

        return gone

    def _cannot_show(self, error: OSError) -> None:
        """Whoever read it is gone, or the disk is full: nobody sees what the container does."""
        self.monitor.fail(UfsError(f"standard output: {error.strerror}; the container was ended", 125))

    def _on_typed(self, data: bytes) -> bytes:
        if self._master >= 0:
            self.monitor.typed(os.tcgetpgrp(self._master) if terminal.interrupts(self._master, data) else None)
        return data

    def _on_input_end(self) -> None:
        """Who was attached sends no more. That is the container's end of input, unless others may attach later."""
        if not self._made.terminal and not self._made.detached:
            self._input.end()

    def _need_running(self) -> state.Running:
        if self._running is None or self.monitor.ended:
            raise UfsError(f"container {self._made.name} is not running", 1)
        return self._running

    def _on_signal(self) -> None:
        for number in self._inbox.arrived():
            if self.monitor.ended:
                continue  # only the server is left, which writes out and ends
            if not self._local:
                self._told_in_background(number)
            elif number == signal.SIGTSTP:
                signals.stop_together(self._processes.init.pid)
            elif number == signal.SIGCONT:
                signals.resume(self._processes.init.pid)
            elif number == signal.SIGWINCH and self._master >= 0:
                terminal.set_window_size(self._master, terminal.window_size(0) or terminal.window_size(1))
            else:
                self.monitor.deliver(number)

    def _told_in_background(self, number: int) -> None:
        """The session or the machine ends: the container is stopped as `ufs stop` would."""
        if number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPWR):
            from launcher.sandbox import signal_names

            number = signal_names.number(self._made.stop_signal or "SIGTERM")
            self.stop(number, self._made.stop_timeout, for_now=True)
