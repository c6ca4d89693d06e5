"""A supervisor at rest gives back the memory of all that it imported to start: it executes itself anew (`anew`).

It is done when nothing is going on: nobody is connected, no output waits, no signal is on its way; what comes meanwhile
waits in pipes and sockets. All that is not handed over is read from the container's files again.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any, NoReturn

from launcher.container import config, state
from launcher.errors import UfsError
from launcher.sandbox.monitor import Child, Processes
from launcher.sandbox.protocol import Channel
from launcher.supervisor import anew, run
from launcher.supervisor.supervisor import Supervisor


def leave(supervisor: Supervisor, held: int) -> None:
    """Become the small program; returns only where that is not possible now."""
    anew.hold_signals()
    if supervisor.undisturbed():
        handed = supervisor.handed()
        anew.become(__name__, {**handed, "held": held}, (held, *handed["descriptors"].values()))
    anew.hear_signals()


def resume(handed: dict[str, Any]) -> NoReturn:
    """Go on in the small program until the container has ended."""
    held, directory, descriptors = handed["held"], handed["directory"], handed["descriptors"]
    anew.taken_over((held, *descriptors.values()))
    known = state.read(directory)
    assert isinstance(known, state.Running | state.Paused)
    server = Channel(socket.socket(fileno=descriptors["server"]), "file system server")
    processes = Processes(Child(known.pid), Child(known.server), None, server, descriptors["binds"])
    made = config.read(directory)
    supervisor = Supervisor(directory, made, known, local=False)
    supervisor.listen(socket.socket(fileno=descriptors["listening"]))
    supervisor.take_over(known, handed, descriptors["master"])
    streams = (descriptors["input"], descriptors["stdout"], descriptors["stderr"])

    status, failure = run.FAILED, None
    try:
        status = supervisor.run(processes, streams, anew.hear_signals)
    except UfsError as error:
        status, failure = run.status_of(error), error
        sys.stderr.write(f"ufs: {error}\n")
    run.conclude(supervisor, made, held, status, failure)
    os._exit(status if status >= 0 else 128 - status)
