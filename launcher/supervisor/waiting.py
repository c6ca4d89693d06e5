"""A supervisor between two runs of its container: it waits for as long as its policy says, and starts it again.

It executes itself anew first (`anew`): a waiting supervisor needs little memory and wakes up once. The lock and the
socket stay, so the container has a supervisor that can be asked all the time.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from launcher.container import control, lock, state
from launcher.errors import UfsError
from launcher.sandbox import signals
from launcher.supervisor import anew
from launcher.supervisor.loop import Loop
from launcher.supervisor.service import Service

_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPWR)


def leave(directory: str, held: int, listening: socket.socket) -> NoReturn:
    """Wait for the next start of a container that is Restarting, in a small program."""
    anew.hold_signals()
    handed = {"directory": directory, "held": held, "listening": listening.fileno()}
    anew.become(__name__, handed, (held, listening.fileno()))
    resume(handed)  # as large as this process is


def resume(handed: dict[str, Any]) -> NoReturn:
    """Wait, and then start it or not."""
    directory, held = handed["directory"], handed["held"]
    anew.taken_over((held, handed["listening"]))
    known = state.read(directory)
    assert isinstance(known, state.Restarting)
    listening = socket.socket(fileno=handed["listening"])
    waiting = _Waiting(directory, known)
    service = Service(waiting.loop, waiting, listening)
    waiting.wait()
    if waiting.ended:
        service.stop_listening()
        _give_up(directory, held, known, stopped=waiting.stopped)
        service.close(known.status, known.error, interrupted=False)
        os._exit(0)
    service.close(known.status, known.error, interrupted=False)
    os._exit(_start(directory, held, known, listening))


class _Waiting:
    """What can be asked of a supervisor that waits: `service.Served`."""

    has_terminal = False

    def __init__(self, directory: str, known: state.Restarting) -> None:
        self.loop = Loop()
        self._directory = directory
        self._known = known
        self._due = False
        self.ended = False
        self.stopped = False
        """Whether somebody has asked for its end, and not the end of the session."""

    def wait(self) -> None:
        """Until it is to be started, or `ended` for good."""
        inbox = signals.Inbox()
        self.loop.reads(inbox.reader, lambda: self._on_signals(inbox.arrived()))
        anew.hear_signals()
        # Never longer than the policy says, whatever was done to the clock.
        left = min(self._known.at + self._known.delay - time.time(), self._known.delay)
        self.loop.after(max(left, 0), self._on_time)
        while not (self._due or self.ended):
            self.loop.turn()

    def _on_time(self) -> None:
        from launcher.container import config, restart

        # `ufs update` may have changed the policy meanwhile.
        self._due = config.read(self._directory).restart.name != restart.NO
        self.ended = not self._due

    def _on_signals(self, numbers: list[int]) -> None:
        self.ended = self.ended or any(number in _ENDING for number in numbers)

    def signal(self, number: int) -> None:
        """There is no process to get it, but one that would end it for good does so."""
        from launcher.container import config

        if not config.ends(config.read(self._directory), number):
            raise self._refusal()
        self.stopped = self.ended = True

    def stop(self, number: int, grace: float | None, *, for_now: bool) -> None:
        """It is not started again."""
        self.stopped, self.ended = not for_now, True

    @property
    def last_status(self) -> int:
        """It has ended, for this time."""
        return self._known.status

    def pause(self) -> str:
        raise self._refusal()

    def unpause(self) -> str:
        raise self._refusal()

    def flush(self) -> None:
        """All has been written."""

    def attach(self, output: int, error: int, wants_input: bool) -> Callable[[], None]:
        raise self._refusal()

    def resize(self, size: bytes) -> None:
        """There is no terminal."""

    def execute(self, *_: Any) -> None:
        raise self._refusal()

    def _refusal(self) -> UfsError:
        return UfsError(f"container {os.path.basename(self._directory)[:12]} is restarting, not running", 1)


def _give_up(directory: str, held: int, known: state.Restarting, *, stopped: bool) -> None:
    ended = state.Exited(
        known.at, known.status, known.error, known.created, known.started, known.restarts, stopped
    )  # fmt: skip
    with suppress(FileNotFoundError):
        os.unlink(f"{directory}/{control.NAME}")
    state.move(directory, ended)
    lock.release(held)


def _start(directory: str, held: int, known: state.Restarting, listening: socket.socket) -> int:
    """From here on this process is what it was at the first start."""
    from launcher.container.catalogue import open_container
    from launcher.image.store import Store
    from launcher.supervisor import run, starting

    container = open_container(directory)
    try:
        image = starting.prepare(Store(os.path.dirname(os.path.dirname(directory))), container)
    except UfsError as error:
        sys.stderr.write(f"ufs: {error}\n")
        listening.close()
        _give_up(directory, held, known._replace(error=str(error), status=run.FAILED), stopped=False)
        return error.status
    try:
        return run.run(container, image, held, local=False, listening=listening)
    except UfsError as error:
        sys.stderr.write(f"ufs: {error}\n")
        return error.status
