"""Test code in another process, whose failures are the test's."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.support.waiting import settles


class Child:
    """A forked process that runs `call`. It shares the open files of the test, not its locks (fork(2))."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._errors, errors = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            status = 1
            try:
                os.close(self._errors)
                call()
                status = 0
            except BaseException:  # noqa: BLE001 (a forked child has nobody to raise to)
                os.write(errors, traceback.format_exc().encode())
            finally:
                os._exit(status)
        os.close(errors)

    def ended(self) -> bool:
        """Whether it ended; it stays to be waited for."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def sleeps(self) -> bool:
        """Whether it sleeps in the kernel, as it does in a call that blocks."""
        with open(f"/proc/{self.pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] == b"S"

    def wait(self) -> None:
        """Until it ended; raises what it raised, as text."""
        with os.fdopen(self._errors) as file:
            said = file.read()
        _, status = os.waitpid(self.pid, 0)
        assert status == 0, f"in the child (status {status}): {said}"


def in_child(call: Callable[[], object]) -> None:
    """Run `call` in a process of its own and wait for it."""
    Child(call).wait()


def errno_in_child(call: Callable[[], object]) -> int:
    """The errno that `call` gets in a process of its own, or 0; 255 where it failed otherwise, with a traceback."""
    pid = os.fork()
    if not pid:
        code = 255
        try:
            call()
            code = 0
        except OSError as error:
            code = error.errno or 255
        except BaseException:  # noqa: BLE001 (a forked child has nobody to raise to)
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@contextmanager
def beside(call: Callable[[], object]) -> Iterator[Child]:
    """Run `call` in a process of its own that has ended after the block."""
    child = Child(call)
    try:
        yield child
        settles(child.ended)
    finally:
        if not child.ended():
            os.kill(child.pid, 9)
        child.wait()
