"""A union mounted by a child of the test process, over the content of `tests.support.content`."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from tests.support.waiting import settles
from unionfs import syscalls
from unionfs.fuse import mount
from unionfs.open import open_union
from unionfs.serve import serve
from unionfs.tree import Tree

_MS_REMOUNT = 32
_FRONT_ENDS = {"direct": "unionfs.fuse.direct", "pyfuse3": "unionfs.fuse.libfuse"}
_OF_LIBFUSE = "fuse: reading device: Software caused connection abort\n"
"""What libfuse itself prints when the mount goes while it reads a request."""


class Mounted:
    """A mount at `target` with an upper beside it; `mount` and `unmount` may be called again and again."""

    def __init__(
        self,
        base: Path,
        open_tree: Callable[[], Tree],
        engine: str,
        overrides: bool = False,
        disk: Path | None = None,
    ) -> None:
        """`disk`: where the upper lies, if not in `base`."""
        disk = disk or base
        self.target, self.upper, self.work = base / "merged", disk / "upper", disk / "work"
        self._log = base / "server.log"
        self.open_tree = open_tree
        self._engine = engine
        self._overrides = overrides
        self._server = 0
        for path in (self.target, self.upper, self.work):
            path.mkdir()

    def mount(self) -> None:
        """Mount; returns when the mount answers."""
        import_module(_FRONT_ENDS[self._engine])  # once here instead of in every child
        answered, answer = os.pipe()
        self._server = os.fork()
        if not self._server:
            os.close(answered)
            self._serve(answer)
        os.close(answer)
        with os.fdopen(answered, "rb") as pipe:
            if not pipe.read(1):
                os.waitpid(self._server, 0)
                self._server = 0
                raise AssertionError(f"the server did not start:\n{self._log.read_text()}")

    def _serve(self, answer: int) -> None:
        """In the child: what it says goes into a file, for nothing of it is expected."""
        status = 1
        try:
            log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.setsid()
            logging.basicConfig(filename=self._log, force=True)  # the collector of the tests would keep it to itself
            upper, work = os.fsencode(self.upper), os.fsencode(self.work)
            union = open_union(self.open_tree(), upper, work, overrides=self._overrides)
            if os.geteuid() == 0:
                fd = mount.open_device()
                mount.mount(fd, str(self.target))
            else:
                fd = mount.fusermount(str(self.target), ["default_permissions"])
            serve(union, fd, self._engine, lambda: os.write(answer, b"+") and None)
            status = 0
        except BaseException:  # noqa: BLE001 (a forked child has nobody to raise to)
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(status)

    def forget(self) -> None:
        """Make the kernel forget all names and files that are not in use, as it does when memory is short."""
        # Remounting shrinks the file system's dentry cache (reconfigure_super() in fs/super.c). Root only.
        syscalls.mount(b"ufs", os.fsencode(self.target), b"fuse.ufs", _MS_REMOUNT, b"")

    @property
    def server(self) -> int:
        """The process that serves, 0 for none."""
        return self._server

    def removed_and_open(self) -> list[str]:
        """Files and directories without a name of the upper or work directory that the server has open."""
        found = []
        for entry in Path(f"/proc/{self._server}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                link = os.readlink(entry)
                # One whose name alone has gone may be a hard link's. What others have open was inherited from the test.
                if link.startswith((f"{self.upper}/", f"{self.work}/")) and not entry.stat().st_nlink:
                    found.append(link)
        return found

    def take_log(self) -> str:
        """What the server said so far, for a test that expects something; `unmount` then asks for no more of it."""
        text = self._log.read_text()
        os.truncate(self._log, 0)
        return text

    def unmount(self) -> None:
        """Unmount and wait for the server, which must have had nothing to complain about."""
        if not self._server:
            return
        server, self._server = self._server, 0
        mount.unmount(str(self.target))
        status: list[int] = []

        def ended() -> bool:
            pid, code = os.waitpid(server, os.WNOHANG)
            status.append(code)
            return pid != 0

        if not settles(ended, 20):
            os.kill(server, signal.SIGKILL)
            os.waitpid(server, 0)
            raise AssertionError(f"the server did not end:\n{self._log.read_text()}")
        assert status[-1] == 0, f"the server ended with {status[-1]}:\n{self._log.read_text()}"
        said = self._log.read_text().replace(_OF_LIBFUSE, "")
        assert not said, f"the server said:\n{said}"
