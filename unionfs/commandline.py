"""What the commands have in common: a mistake is one line, and a reader who has seen enough is no failure."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Never

import click

from unionfs import inherited


class OutputClosed(Exception):
    """Nobody reads standard output any more. Click would take the error itself for a failure, with status 1."""


@contextmanager
def output_may_close() -> Iterator[None]:
    """Keep the broken pipe of what is printed here from click: `OutputClosed` instead."""
    try:
        yield
    except BrokenPipeError as error:
        raise OutputClosed from error


def end_unread() -> int:
    """Die as every program does whose reader has seen enough, by SIGPIPE; the status where that is blocked.

    Python ignores the signal, and reports an error that is none.
    """
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGPIPE)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python would complain again when it flushes at exit
    return 128 + signal.SIGPIPE


class OneLine(click.Command):
    """A command whose usage errors are one line on standard error, with status 2."""

    def __call__(self, *_: Any, **__: Any) -> Never:
        """Run as a program of its own: never returns."""
        inherited.put_right()
        try:
            sys.exit(self.main(sys.argv[1:], standalone_mode=False) or 0)
        except click.ClickException as error:
            print(f"{self.name}: {error.format_message()} (see {self.name} --help)", file=sys.stderr)
            sys.exit(error.exit_code)
        except OutputClosed:
            sys.exit(end_unread())

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """As click does; `--help` prints here."""
        with output_may_close():
            return super().make_context(*args, **extra)
