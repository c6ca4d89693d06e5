"""Starting a container whose supervisor goes on in the background."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from launcher.errors import UfsError
from launcher.sandbox.protocol import Channel

if TYPE_CHECKING:
    from launcher.container.catalogue import Container
    from launcher.image.resolve import Image

MESSAGES = "supervisor.log"
"""In the container's directory: what the processes of the container that are ours complain about. Empty, as a rule."""


def start(container: Container, image: Image, held: int) -> Channel:
    """Fork a supervisor for a container that is Starting and whose lock `held` is, which goes to it.

    The channel is the first connection to it (`launcher.container.control`). It waits with the container's start for
    what is asked there first.
    """
    ours, theirs = Channel.pair("command", "container's supervisor")
    pid = os.fork()
    if pid == 0:
        status = 70  # EX_SOFTWARE
        try:
            ours.close()
            _leave(container.directory, keep=(held, theirs.fileno()))
            status = _supervise(container, image, held, theirs)
        finally:
            if sys.exc_info()[0] is not None:
                sys.excepthook(*sys.exc_info())  # into MESSAGES
            os._exit(status)
    theirs.close()
    os.close(held)
    return ours


def wait_until_started(channel: Channel) -> None:
    """Let it begin, and return when its command has. UfsError where it could not be started."""
    channel.send("wait")
    channel.expect("started")


def _supervise(container: Container, image: Image, held: int, first: Channel) -> int:
    from launcher.supervisor.run import run

    try:
        return run(container, image, held, local=False, first=first)
    except UfsError as error:
        with suppress(OSError):
            os.write(2, f"ufs: {error}\n".encode(errors="surrogateescape"))
        return error.status


def _leave(directory: str, keep: tuple[int, int]) -> None:
    """Leave the session, the terminal, the directory and every descriptor of the command that started us."""
    os.setsid()
    os.chdir("/")
    messages = os.open(f"{directory}/{MESSAGES}", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    nothing = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for number, source in enumerate((nothing, nothing, messages)):
        os.dup2(source, number)
    before = 2
    for number in sorted(keep):
        os.closerange(before + 1, number)
        before = number
    os.closerange(before + 1, os.sysconf("SC_OPEN_MAX"))
    # Whoever ran the command with signals blocked or ignored meant that for the command.
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
