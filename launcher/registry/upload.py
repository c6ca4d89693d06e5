"""Bringing a blob to a registry: not at all, by a mount from another repository there, or in chunks.

OCI distribution specification 1.1, "Pushing blobs": a chunk that failed goes on where the registry says it stands.
"""

from __future__ import annotations

import os
from typing import Protocol

import httpx
import trio

from launcher.errors import UfsError
from launcher.image.oci import Descriptor
from launcher.registry.patience import Patience
from launcher.registry.session import Refused, Session, unreachable

CHUNK = 16 << 20
"""Bytes of one request. A registry may want larger ones (OCI-Chunk-Min-Length)."""


class Watcher(Protocol):
    """Who shows how far the blobs are."""

    def begin(self, digest: str, size: int, have: int) -> None:
        """A blob is sent; `have` bytes of it are there already."""

    def advance(self, digest: str, count: int) -> None:
        """`count` more bytes were sent."""

    def end(self, digest: str, what: str) -> None:
        """It is there."""


async def blob(session: Session, one: Descriptor, fd: int, mounted_from: str | None, watcher: Watcher) -> None:
    """Let the registry have a blob, whose bytes `fd` has. `mounted_from` is a repository there that has it, perhaps."""
    if await _is_there(session, one):
        watcher.end(one.digest, "Layer already exists")
        return
    location = await _begin(session, one, mounted_from)
    if location is None:
        watcher.end(one.digest, f"Mounted from {mounted_from}")
        return
    watcher.begin(one.digest, one.size, 0)
    await _Upload(session, one, fd, location, watcher).run()
    watcher.end(one.digest, "Pushed")


async def _is_there(session: Session, one: Descriptor) -> bool:
    async with session.ask("HEAD", session.path(f"blobs/{one.digest}"), good=(200, 404)) as response:
        return response.status_code == 200


async def _begin(session: Session, one: Descriptor, mounted_from: str | None) -> httpx.Response | None:
    """Ask for an upload; None where the mount spared it."""
    mount = f"?mount={one.digest}&from={mounted_from}" if mounted_from else ""
    async with session.ask("POST", session.path(f"blobs/uploads/{mount}"), good=(201, 202)) as response:
        return None if response.status_code == 201 else response


class _Upload:
    """One upload that is under way."""

    def __init__(self, session: Session, one: Descriptor, fd: int, begun: httpx.Response, watcher: Watcher) -> None:
        self._session = session
        self._one = one
        self._fd = fd
        self._watcher = watcher
        self._at = 0  # so much of it the registry has
        self._location = self._next(begun)
        least = begun.headers.get("OCI-Chunk-Min-Length", "")
        self._chunk = max(CHUNK, int(least) if least.isascii() and least.isdigit() else 0)

    async def run(self) -> None:
        patience = Patience()
        while self._at < self._one.size:
            before = self._at
            failure: UfsError
            try:
                await self._send()
                patience.progressed()
                continue
            except httpx.TransportError as error:
                failure = unreachable(self._session.endpoint.host, error)
            except Refused as error:
                if error.code not in (416, 429, 500, 502, 503, 504):
                    raise
                failure = error
            delay = patience.delay()
            if delay is None:
                raise failure
            await trio.sleep(delay)
            await self._ask_where()
            if self._at > before:
                patience.progressed()
        separator = "&" if "?" in self._location else "?"
        url = f"{self._location}{separator}digest={self._one.digest}"
        async with self._session.ask("PUT", url, good=(201, 204), content=b""):
            return

    async def _send(self) -> None:
        """One chunk, from where the registry stands."""
        data = os.pread(self._fd, min(self._chunk, self._one.size - self._at), self._at)
        if not data:
            raise UfsError(f"layer {self._one.hex[:12]} in the store is shorter than its manifest says; ufs fsck")
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"{self._at}-{self._at + len(data) - 1}",
        }
        async with self._session.ask(
            "PATCH", self._location, headers=headers, content=data, good=(202,), blob=True, again=False
        ) as response:
            self._location = self._next(response)
        self._at += len(data)
        self._watcher.advance(self._one.digest, len(data))

    async def _ask_where(self) -> None:
        """After a failure: how much the registry has, and where to go on; from 0 where it has lost track."""
        async with self._session.ask("GET", self._location, good=(204, 404)) as response:
            lost = response.status_code == 404
            if not lost:
                self._location = self._next(response)
            _, _, last = response.headers.get("Range", "0-0").rpartition("-")
        if lost:
            begun = await _begin(self._session, self._one, None)
            assert begun is not None
            self._location, self._at = self._next(begun), 0
            return
        stands = int(last) + 1 if last.isascii() and last.isdigit() else 0
        # "0-0" is what registries say of nothing as well as of one byte; a byte sent again would be refused.
        self._at = 0 if stands == 1 else min(stands, self._one.size)

    def _next(self, response: httpx.Response) -> str:
        location = response.headers.get("Location")
        if not location:
            raise UfsError(f"{self._session.endpoint.host} begins an upload without saying where; is it a registry?")
        return str(response.url.join(location))
