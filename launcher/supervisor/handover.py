"""A supervisor at rest gives back the memory of all that it imported to start: it executes itself anew.

execve(2) keeps the process, so also its children, which have asked to die with it, the lock, and every descriptor that
is to stay. All else is read from the container's files again. It is done when nothing is going on: nobody is connected,
no output waits, no signal is on its way; what comes meanwhile waits in pipes and sockets.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from typing import Any, NoReturn

from launcher.container import config, state
from launcher.errors import UfsError
from launcher.sandbox import signals
from launcher.sandbox.monitor import Child, Processes
from launcher.sandbox.protocol import Channel
from launcher.supervisor import run
from launcher.supervisor.supervisor import Supervisor

_PROGRAM = os.path.join(os.path.dirname(__file__), "small.py")


def leave(supervisor: Supervisor, held: int) -> None:
    """Become the small program; returns only where that is not possible now."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signals.FORWARDED)
    if not supervisor.undisturbed():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.FORWARDED)
        return
    handed = {**supervisor.handed(), "held": held, "path": sys.path}
    for descriptor in (held, *handed["descriptors"].values()):
        if descriptor >= 0:
            os.set_inheritable(descriptor, True)
    try:
        os.execv(sys.executable, [sys.executable, "-ISXutf8", _PROGRAM, json.dumps(handed)])
    except OSError as error:  # the Python that we run was replaced: then this stays as it is
        sys.stderr.write(f"ufs: {sys.executable}: {error.strerror}\n")
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.FORWARDED)


def resume(handed: dict[str, Any]) -> NoReturn:
    """Go on in the small program until the container has ended."""
    held, directory, descriptors = handed["held"], handed["directory"], handed["descriptors"]
    for descriptor in (held, *descriptors.values()):
        if descriptor >= 0:
            os.set_inheritable(descriptor, False)
    known = state.read(directory)
    assert isinstance(known, state.Running | state.Paused)
    server = Channel(socket.socket(fileno=descriptors["server"]), "file system server")
    processes = Processes(Child(known.pid), Child(known.server), None, server, descriptors["binds"])
    made = config.read(directory)
    supervisor = Supervisor(directory, made, known.created, local=False)
    supervisor.listen(socket.socket(fileno=descriptors["listening"]))
    supervisor.take_over(known, descriptors["master"], handed["commands"])
    streams = (descriptors["input"], descriptors["stdout"], descriptors["stderr"])

    status, failure = run.FAILED, None
    try:
        status = supervisor.run(processes, streams, _hear_signals)
    except UfsError as error:
        status, failure = run.status_of(error), error
        sys.stderr.write(f"ufs: {error}\n")
    run.conclude(supervisor, made, held, status, failure)
    os._exit(status if status >= 0 else 128 - status)


def _hear_signals() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.FORWARDED)
