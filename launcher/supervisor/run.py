"""Running a container whose lock is held, in this process: from its configuration to the record of its end."""

from __future__ import annotations

import gc
import os
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from launcher.container import config, control, lock, state
from launcher.errors import UfsError, complain, describe
from launcher.sandbox.protocol import PeerGone
from launcher.supervisor import streams

if TYPE_CHECKING:
    from launcher.container.catalogue import Container
    from launcher.container.config import Config
    from launcher.image.resolve import Image
    from launcher.sandbox.monitor import Processes
    from launcher.sandbox.protocol import Channel
    from launcher.supervisor.streams import Streams
    from launcher.supervisor.supervisor import Supervisor

FAILED = 125
_REST = 1.0  # seconds between looks whether nothing is going on


def run(
    container: Container,
    image: Image,
    held: int,
    *,
    local: bool,
    first: Channel | None = None,
    listening: socket.socket | None = None,
) -> int:
    """Run `container`, which is Starting or Restarting, to its end: the exit status. Raises `UfsError` where the
    launcher failed.

    It is -SIGINT where the container was interrupted, and its caller is to die of that, too.
    `held` is its lock, which is free again on return. With `local` the caller's standard streams are the container's;
    `first` is a connection of whoever started it in the background; `listening` the socket of its last run, where this
    is the next one by its policy.
    """
    made = container.config
    known = state.read(container.directory)
    assert isinstance(known, state.Starting | state.Restarting)
    supervisor: Supervisor | None = None
    status, failure = FAILED, None
    try:
        processes, ours = _made(made, container.directory, image, held, local)
        from launcher.supervisor.supervisor import Supervisor

        supervisor = Supervisor(container.directory, made, known, local=local)
        if not local:
            _be_small(supervisor, held)
        supervisor.listen(listening or control.listen(container.directory))
        status = _supervised(supervisor, processes, ours, first)
    except UfsError as error:
        status, failure = status_of(error), error
    except OSError as error:  # before there is anything to watch: a full disk, no more descriptors
        status, failure = FAILED, UfsError(f"cannot start the container: {describe(error)}", FAILED)
    if supervisor is not None:
        conclude(supervisor, made, held, status, failure)
    else:
        ended = state.Exited(time.time(), status, str(failure), known.created, restarts=known.restarts)
        _finish(container.directory, made, ended)
        os.close(held)  # should there be a server, it has the lock until it ends
    if failure is not None:
        if first is not None and (supervisor is None or not supervisor.adopted):
            first.fail(str(failure), status)
        raise failure
    return status


def status_of(error: UfsError) -> int:
    """The exit status for a container whose launcher failed."""
    return error.status if error.status != 1 else FAILED


def conclude(supervisor: Supervisor, made: Config, held: int, status: int, failure: UfsError | None) -> None:
    """Record the end of a container, let go of its lock, and tell everybody who is connected: in this order, so that
    who is told finds it ended, and free to be started or removed.

    Does not return where its policy has it started again: then this process keeps the lock, and waits for that.
    """
    code = status if status >= 0 else 128 - status
    ended = supervisor.exited(code, str(failure) if failure is not None else None)
    if supervisor.may_run_again:
        _begin_to_wait(supervisor, made, held, ended, status, failure)
        ended = ended._replace(stopped=supervisor.stopped)  # it may have been asked for meanwhile
    supervisor.stop_listening()
    _finish(supervisor.directory, made, ended)
    lock.release(held)
    supervisor.flush_outputs()
    supervisor.close(status, failure)


def _begin_to_wait(
    supervisor: Supervisor, made: Config, held: int, ended: state.Exited, status: int, failure: UfsError | None
) -> None:
    """Become what waits for the next start; returns where there is none."""
    from launcher.container import restart

    directory = supervisor.directory
    again = restart.after(config.read(directory).restart, ended, supervisor.delay)
    if again is None:
        return
    _clear(directory, made)
    try:
        state.move(directory, again)
    except OSError as error:
        complain(f"{made.name} is not started again, for that cannot be recorded: {describe(error)}")
        return
    supervisor.flush_outputs()
    if not supervisor.may_run_again:
        return
    supervisor.close(status, failure)
    from launcher.supervisor import waiting

    waiting.leave(directory, held, supervisor.listening)


def _be_small(supervisor: Supervisor, held: int) -> None:
    """Give memory back when it has been running for a while and nothing is going on."""

    def look() -> None:
        if supervisor.undisturbed():
            from launcher.supervisor import handover

            handover.leave(supervisor, held)
        if not supervisor.monitor.ended:
            supervisor.loop.after(_REST, look)

    supervisor.loop.after(_REST, look)


def _made(made: Config, directory: str, image: Image, held: int, local: bool) -> tuple[Processes, Streams]:
    """Its processes, which wait for "go", and our ends of its streams."""
    from launcher.container import logs
    from launcher.sandbox import launch, terminal

    def orphaned() -> None:
        state.settle(directory, time.time())
        if made.log.driver != "none":
            logs.Writer(directory, made.log).recover()

    theirs, ours = _streams(made, local)
    size = (terminal.window_size(0) or terminal.window_size(1)) if made.terminal and local else b""
    spec = config.spec(made, directory, theirs, size)
    processes = launch.start(spec, image, held, meanwhile=_preload, orphaned=orphaned)
    streams.close(theirs)
    return processes, ours


def _preload() -> None:
    """Import what supervising needs while other processes of the container do their part."""
    import launcher.supervisor.supervisor  # noqa: F401


def _supervised(supervisor: Supervisor, processes: Processes, ours: Streams, first: Channel | None) -> int:
    def go() -> None:
        if first is not None:
            supervisor.adopt(first)
        with suppress(PeerGone):  # it was killed, and the monitor will see by what
            assert processes.to_init is not None
            processes.to_init.send("go")
        gc.enable()

    return supervisor.run(processes, ours, go)


def _streams(made: Config, local: bool) -> tuple[Streams, Streams]:
    """(what the command gets as 0, 1 and 2, our ends): pipes where they are recorded or it is in the background."""
    if made.terminal:
        return (-1, -1, -1), (-1, -1, -1)
    passed = () if not local else (0,) if made.log.driver != "none" else (0, 1, 2)
    return streams.connected(made.user, interactive=made.interactive, passed=passed)


def _finish(directory: str, made: Config, ended: state.Exited) -> None:
    """Record the end."""
    _clear(directory, made)
    if made.remove:
        return
    with suppress(FileNotFoundError):  # it never began to listen
        os.unlink(f"{directory}/{control.NAME}")
    state.move(directory, ended)


def _clear(directory: str, made: Config) -> None:
    """Remove what is to go. The server has, unless it was killed."""
    left = directory if made.remove else f"{directory}/work"
    if os.path.lexists(left):
        from launcher.container import lifecycle

        try:
            lifecycle.remove_as_owner(left, made.ids)
        except UfsError as error:
            complain(str(error))  # no reason not to record the end
    if made.remove and any(volume.anonymous for volume in made.volumes):
        from launcher.container import volumes

        try:
            volumes.sweep(os.path.dirname(os.path.dirname(directory)), volumes.anonymous(made))
        except (UfsError, OSError) as error:
            complain(describe(error))  # the same; they are found by the next sweep
