"""`push`: an image of the store to a registry, as it is: manifest and digests stay what they are."""

from __future__ import annotations

import os
from contextlib import suppress

import trio

from launcher.errors import UfsError
from launcher.image import oci, reference, typed
from launcher.image.oci import Descriptor
from launcher.image.reference import Reference
from launcher.image.store import Record, Store
from launcher.registry import upload
from launcher.registry.endpoints import Registries
from launcher.registry.pull import AT_ONCE, run, session_for
from launcher.registry.session import Session
from launcher.registry.upload import Watcher


def push(
    record: Record,
    to: Reference,
    store: Store,
    registries: Registries,
    watcher: Watcher,
    insecure: bool | None = None,
) -> str:
    """Push an image under the name `to`; the manifest's digest. UfsError, OSError.

    What the manifest refers to is there before the manifest is.
    """

    async def job() -> str:
        endpoint = registries.endpoints(to, insecure)[-1]  # mirrors are for reading
        async with session_for(to, endpoint, "pull,push") as session:
            await _push(session, record, to, store, watcher)
        return record.manifest.digest

    return run(job)


async def _push(session: Session, record: Record, to: Reference, store: Store, watcher: Watcher) -> None:
    manifest = store.manifest(record.manifest.hex)
    elsewhere = _repositories(to, store)
    limit = trio.CapacityLimiter(AT_ONCE)

    async def one(blob: Descriptor) -> None:
        async with limit:
            fd = _opened(store, blob)
            try:
                await upload.blob(session, blob, fd, elsewhere.get(blob.digest), watcher)
            finally:
                os.close(fd)

    async with trio.open_nursery() as nursery:
        for blob in {blob.digest: blob for blob in (manifest.config, *manifest.layers)}.values():
            nursery.start_soon(one, blob)
    with open(store.blob(record.manifest.hex), "rb") as file:
        data = file.read()
    media_type = (
        typed.Fields(typed.load(data, "manifest"), "manifest").text("mediaType", "") or record.manifest.media_type
    )
    headers = {"Content-Type": media_type or oci.MANIFEST}
    path = session.path(f"manifests/{to.tag or record.manifest.digest}")
    async with session.ask("PUT", path, headers=headers, content=data, good=(201,)):
        return


def _opened(store: Store, blob: Descriptor) -> int:
    try:
        return os.open(store.blob(blob.hex), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise UfsError(f"blob {blob.hex[:12]} is missing from the store; load or pull the image again") from None


def _repositories(to: Reference, store: Store) -> dict[str, str]:
    """Digest of a layer to another repository of the same registry that should have it, by the names in the store."""
    found: dict[str, str] = {}
    for record in store.records():
        if not record.name:
            continue
        named = reference.parse(record.name)
        # Only what came from there is known to be there.
        if named.registry == to.registry and named.repository != to.repository and "@" in record.source:
            with suppress(UfsError):  # a damaged image is no hint, and no hindrance
                for layer in store.manifest(record.manifest.hex).layers:
                    found.setdefault(layer.digest, named.repository)
    return found
