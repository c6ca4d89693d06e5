"""Blobs on their way: the network appends to a file of the store, a thread verifies and unpacks right behind it.

`partial/<hex digest>` keeps what has come when a pull ends early, however it ends; the next one goes on from there by a
Range request. Who writes to it holds a lock, flock(2), on it; another process that wants the same blob waits until it
is whole, and verifies it again for itself.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from contextlib import suppress
from typing import Protocol

import httpx
import trio

from launcher.errors import UfsError
from launcher.image.oci import Descriptor
from launcher.image.source import Cancelled
from launcher.image.store import Store
from launcher.registry.patience import Patience
from launcher.registry.session import Session, unreachable

_LOCKED_AGAIN = 0.1  # seconds between two looks at a lock that another process holds


class Watcher(Protocol):
    """Who shows how far the blobs are; called from one thread."""

    def begin(self, digest: str, size: int, have: int) -> None:
        """A blob is asked for; `have` bytes of it were there already."""

    def advance(self, digest: str, count: int) -> None:
        """`count` more bytes have come."""

    def waiting(self, digest: str, reason: str) -> None:
        """It does not go on at the moment."""

    def end(self, digest: str, what: str) -> None:
        """All of it is there, or it was there before."""


class Download:
    """One blob; a `launcher.image.source.Bytes` to be read while it grows. `path` is its file, to be moved away."""

    def __init__(self, store: Store, descriptor: Descriptor) -> None:
        self.descriptor = descriptor
        self.size = descriptor.size
        self.path: str | None = store.path("partial", descriptor.hex)
        self._stored = store.blob(descriptor.hex)
        self._fd = -1
        self._have = 0
        self._failure: BaseException | None = None
        self._changed = threading.Condition()

    # For who reads, in any thread.

    def read(self, at: int, size: int) -> bytes:
        """Bytes from `at` on, once some are there: up to `size`, none at the end. Raises what went wrong."""
        with self._changed:
            while self._have <= at < self.size and self._failure is None:
                self._changed.wait()
            if self._have <= at < self.size:
                assert self._failure is not None
                raise self._failure
            fit = min(size, self._have - at)
        return os.pread(self._fd, fit, at) if fit > 0 else b""

    def descriptor_of_file(self) -> int:
        """A descriptor of the file, the caller's."""
        return os.dup(self._fd)

    def spoiled(self) -> None:
        """What came is not what it should be: the next try begins anew."""
        if self.path is not None and self.path != self._stored:
            with suppress(FileNotFoundError):
                os.unlink(self.path)

    def abandon(self) -> None:
        """See `launcher.image.source.Bytes`."""
        self._fail(Cancelled())

    # For who writes, in the network's thread.

    async def run(self, session: Session, watcher: Watcher, limit: trio.CapacityLimiter) -> None:
        """Bring all of it. What goes wrong is what `read` raises."""
        try:
            async with limit:
                await self._open()
                watcher.begin(self.descriptor.digest, self.size, self._have)
                await self._fetch(session, watcher)
                # Not kept until it is published: two pulls that each wait for what the other has would wait for ever.
                fcntl.flock(self._fd, fcntl.LOCK_UN)
                watcher.end(self.descriptor.digest, "Download complete")
        except (UfsError, OSError) as error:
            self._fail(error)
        except BaseException:
            self._fail(UfsError("interrupted; what has come is kept for the next try"))
            raise

    def close(self) -> None:
        """Let go of the file, and of its lock."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    async def _open(self) -> None:
        assert self.path is not None
        os.makedirs(os.path.dirname(self.path), 0o700, exist_ok=True)
        while True:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            locked = self._try_lock()
            have = os.fstat(self._fd)
            if locked and have.st_nlink:
                break
            self.close()
            if not locked:
                await trio.sleep(_LOCKED_AGAIN)
        if os.path.exists(self._stored):  # another pull has published it
            self.spoiled()
            self.close()
            self.path = self._stored
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            have = os.fstat(self._fd)
        elif have.st_size > self.size:
            os.ftruncate(self._fd, 0)
            have = os.fstat(self._fd)
        self._grown(have.st_size)

    def _try_lock(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    async def _fetch(self, session: Session, watcher: Watcher) -> None:
        patience = Patience()
        while self._have < self.size:
            before = self._have
            failure: UfsError | None = None
            try:
                await self._once(session, watcher)
            except httpx.TransportError as error:
                failure = unreachable(session.endpoint.host, error)
            if self._have >= self.size:
                return
            if self._have > before:
                patience.progressed()
            delay = patience.delay()
            if delay is None:
                missing = f"only {self._have} of {self.size} bytes came"
                raise failure or UfsError(f"{session.endpoint.host} cuts layer {self.descriptor.hex[:12]}: {missing}")
            watcher.waiting(self.descriptor.digest, "Retrying")
            await trio.sleep(delay)

    async def _once(self, session: Session, watcher: Watcher) -> None:
        """One request, from where the last one ended. A registry may send all of it again: that part is passed over."""
        headers = {"Accept-Encoding": "identity"}
        if self._have:
            headers["Range"] = f"bytes={self._have}-"
        path = session.path(f"blobs/{self.descriptor.digest}")
        async with session.ask("GET", path, headers=headers, good=(200, 206), blob=True) as response:
            at = 0
            if response.status_code == 206:
                at = self._have
                if not response.headers.get("Content-Range", "").startswith(f"bytes {at}-"):
                    raise UfsError(f"{session.endpoint.host} answers a Range request with another range; try again")
            async for piece in response.aiter_raw():
                fresh = piece[max(0, self._have - at) :]
                at += len(piece)
                if at > self.size:
                    raise UfsError(
                        f"{session.endpoint.host} sends more for layer {self.descriptor.hex[:12]} than the "
                        f"{self.size} bytes that its manifest says; the image is damaged or forged"
                    )
                if fresh:
                    self._append(fresh)
                    watcher.advance(self.descriptor.digest, len(fresh))

    def _append(self, piece: bytes) -> None:
        view, at = memoryview(piece), self._have
        while view:
            written = os.pwrite(self._fd, view, at)
            at, view = at + written, view[written:]
        self._grown(at)

    def _grown(self, have: int) -> None:
        with self._changed:
            self._have = have
            self._changed.notify_all()

    def _fail(self, failure: BaseException) -> None:
        if isinstance(failure, OSError) and failure.errno is None:
            failure = OSError(errno.EIO, str(failure))
        with self._changed:
            self._failure = self._failure or failure
            self._changed.notify_all()
