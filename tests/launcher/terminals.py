"""A terminal in which one of our commands is the foreground process."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import termios
import time
from collections.abc import Sequence
from typing import Protocol

from tests.support.users import User


class Runs(Protocol):
    """Who runs what: `Runner` or `Containers`."""

    user: User
    image: str


class Terminal:
    """A pty in which `ufs-run` is the foreground process."""

    def __init__(self, run: Runs, *words: str, program: Sequence[str] = ("ufs-run", "--rm")) -> None:
        self.master, slave = pty.openpty()
        self.resize(33, 99)
        os.fchown(slave, run.user.uid, -1) if os.geteuid() == 0 else None
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.seen = b""
        arguments = [run.image if word == "IMAGE" else word for word in words]
        self.process = run.user.popen(
            [*program, *arguments], stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def until(self, text: bytes, seconds: float = 20, pressing: bytes = b"") -> None:
        """Wait for output, pressing keys again and again meanwhile."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            self.type(pressing)
            assert time.monotonic() < deadline, f"waited for {text!r}, saw {self.seen!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += os.read(self.master, 4096)
        self.seen = self.seen.partition(text)[2]

    def type(self, text: bytes) -> None:
        os.write(self.master, text)

    def close(self) -> None:
        os.close(self.master)
        os.close(self.slave)
        self.process.wait(10)
