"""Serving in the background: the caller goes on once the mount answers, and learns of it if it does not."""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType

from unionfs import inherited

_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def hold_signals() -> None:
    """To be called before mounting: a signal that ends the server waits until `run` can unmount for it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)


def run(serve: Callable[[Callable[[], None]], None], unmount: Callable[[], None], foreground: bool = False) -> None:
    """Call `serve(ready)` in a child of its own session, and return when it called `ready`.

    What the caller of this program has open is closed where `serve` runs, the standard streams once it is ready.
    On SIGTERM, SIGINT and SIGHUP the child calls `unmount`, which ends `serve`. Raises `OSError` if the child
    ended without being ready. In the foreground, `serve` runs right here.
    """
    if foreground:
        inherited.let_go()
        _end_on_signals(unmount)
        serve(lambda: None)
        return
    answered, answer = os.pipe()
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        os.close(answer)
        with os.fdopen(answered, "rb") as pipe:
            if not pipe.read(1):
                os.waitpid(pid, 0)
                raise OSError(errno.EIO, "the file system server ended before the mount answered")
        return
    os.close(answered)
    _serve_in_child(serve, unmount, answer)


def _serve_in_child(serve: Callable[[Callable[[], None]], None], unmount: Callable[[], None], answer: int) -> None:
    status = 1
    try:
        os.setsid()
        os.chdir("/")
        inherited.let_go()
        _end_on_signals(unmount)

        def ready() -> None:
            _leave_streams()
            os.write(answer, b"+")
            os.close(answer)

        serve(ready)
        status = 0
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        try:
            sys.stderr.flush()
        finally:  # whatever became of the stream
            os._exit(status)


def _end_on_signals(unmount: Callable[[], None]) -> None:
    def end(number: int, frame: FrameType | None) -> None:
        # Not by ourselves: unmounting writes dirty pages back, which this very process has to serve.
        try:
            child = os.fork()
        except OSError:  # no more processes for this user (RLIMIT_NPROC): tried again in a second
            signal.alarm(1)
            return
        if not child:
            try:
                unmount()
            finally:
                os._exit(0)

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that child needs no waiting for
    for number in (*_ENDING, signal.SIGALRM):
        signal.signal(number, end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)


def _leave_streams() -> None:
    """Let go of the caller's pipes: who waits for their end must not wait for the mount's."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    if null > 2:
        os.close(null)
