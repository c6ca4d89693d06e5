"""Threads for what may block for long. Where there are none to be had, whoever hands work over does it."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread


class Workers:
    """Up to `most` threads, each started when there is work that it could do."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._threads: list[Thread] = []
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def submit(self, work: Callable[[], None]) -> None:
        """Have it done, which must not raise: here and now where not even one thread could be started.

        The system refuses one more where the user has as many as he may (RLIMIT_NPROC of getrlimit(2), pids cgroups).
        """
        if len(self._threads) < self._most:
            thread = Thread(target=self._run, name="unionfs")
            try:
                thread.start()
                self._threads.append(thread)
            except RuntimeError:
                if not self._threads:
                    work()
                    return
        self._work.put(work)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()

    def stop(self) -> None:
        """Wait for all that was handed over."""
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()
