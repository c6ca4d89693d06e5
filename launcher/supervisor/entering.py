"""The supervisor's side of `exec`: a helper is forked, and what it leaves is waited for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from launcher.container.config import Config
from launcher.sandbox.monitor import Child
from launcher.supervisor.loop import Loop

FAILED = 125
_DIGITS = 10  # of a pid, as the helper writes it


class Commands:
    """The further commands in a container that this process is the parent of."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._children: set[Child] = set()
        self._starting = 0

    @property
    def starting(self) -> bool:
        """Whether one is on its way, and not known by a pid yet."""
        return self._starting > 0

    @property
    def pids(self) -> list[int]:
        """Those that run."""
        return [child.pid for child in self._children]

    def watch(self, pid: int, finished: Callable[[int], None]) -> Child:
        """Wait for a child without waiting: `finished` is called with its exit status, 128+n for a signal."""
        child = Child(pid)
        self._children.add(child)

        def end() -> None:
            self._loop.forget(child.handle)
            status = child.reap()
            self._children.discard(child)
            finished(status if status >= 0 else 128 - status)

        self._loop.reads(child.handle, end)
        return child

    def start(
        self, helper: Callable[[int], int], begun: Callable[[Child], None], finished: Callable[[int], None]
    ) -> None:
        """Fork `helper`, which is given a descriptor to write the pid of its own child to, and ends."""
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            status = 70  # EX_SOFTWARE
            try:
                status = helper(writer)
            finally:
                if sys.exc_info()[0] is not None:
                    sys.excepthook(*sys.exc_info())
                os._exit(status)
        os.close(writer)
        self._starting += 1

        def helped(status: int) -> None:
            """Only now is what it forked a child of this process, which is a subreaper."""
            with open(reader, "rb") as pipe:
                text = pipe.read(_DIGITS) if status == 0 else b""
            self._starting -= 1
            if text:
                begun(self.watch(int(text), finished))
            else:
                finished(FAILED)  # it has said why

        self.watch(pid, helped)


def helper(
    made: Config, directory: str, pid: int, fields: dict[str, Any], descriptors: list[int]
) -> Callable[[int], int]:
    """What the helper does: enter the container whose process 1 is `pid`, and fork the command `fields` says.

    `descriptors`: the channel to who asked, and the command's standard streams. All that is heavy is imported in the
    helper, so that the supervisor stays small.
    """

    def run(told: int) -> int:
        import socket

        from launcher.container import config
        from launcher.sandbox import capabilities, enter
        from launcher.sandbox.protocol import Channel

        wanted = fields["wanted"]
        for number, source in enumerate(descriptors[1:]):
            os.dup2(source, number)
        channel = Channel(socket.socket(fileno=descriptors[0]), "command that asked")
        streams = (0 if wanted["interactive"] else -1, 1, 2)
        spec = config.spec(made, directory, streams, bytes.fromhex(fields["size"]))
        kept = frozenset(capabilities.NUMBERS.values()) if wanted["privileged"] else spec.capabilities
        term = {"TERM": "xterm"} if wanted["terminal"] else {}
        spec = spec._replace(
            argv=wanted["argv"],
            environment={**term, **made.environment, **wanted["environment"]},
            working_directory=wanted["working_directory"] or made.working_directory,
            user=wanted["user"] if wanted["user"] is not None else made.user,
            capabilities=kept,
            interactive=wanted["interactive"],
            terminal=wanted["terminal"],
        )
        return enter.run(channel, told, os.pidfd_open(pid), pid, spec)

    return run
