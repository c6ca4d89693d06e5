"""`pull`: an image from a registry into the store, its layers in parallel, each verified and unpacked as it comes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple, TypeVar

import trio

from launcher.errors import UfsError
from launcher.image import load
from launcher.image.found import LayerSource
from launcher.image.oci import Platform
from launcher.image.reference import Reference
from launcher.image.store import Record, Store
from launcher.image.workspace import Workspace, change_index
from launcher.registry import credentials, manifests
from launcher.registry.download import Download, Watcher
from launcher.registry.endpoints import Endpoint, Registries
from launcher.registry.manifests import Described
from launcher.registry.session import Session

AT_ONCE = 4
"""Layers that are fetched at a time."""

T = TypeVar("T")


class Pulled(NamedTuple):
    """`digest` is what the name leads to in the registry; `image` the id; `fresh`: the store had another or none."""

    reference: Reference
    digest: str
    image: str
    fresh: bool


def run(job: Callable[[], Awaitable[T]]) -> T:
    """Do something with the network; one exception comes out, whatever number went in."""
    try:
        return trio.run(job)
    except BaseExceptionGroup as group:
        raise _leaf(group) from None


def _leaf(error: BaseException) -> BaseException:
    """The exception to show of several: an interruption before all others."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [_leaf(inner) for inner in error.exceptions]
    return next((leaf for leaf in leaves if isinstance(leaf, KeyboardInterrupt)), leaves[0])


def pull(
    wanted: Reference,
    store: Store,
    registries: Registries,
    watcher: Watcher,
    steps: load.Progress,
    platform: Platform | None = None,
    insecure: bool | None = None,
    named: str | None = None,
) -> Pulled:
    """Pull one image. Mirrors are asked first; what fails there is asked of the registry. UfsError, OSError.

    `named` is the name that it gets in the store, `wanted` where None.
    """

    async def job() -> Pulled:
        failure: UfsError | None = None
        for endpoint in registries.endpoints(wanted, insecure):
            try:
                async with session_for(wanted, endpoint, "pull") as session:
                    return await _from(session, wanted, named or str(wanted), store, watcher, steps, platform)
            except UfsError as error:
                if not endpoint.mirror:
                    raise
                failure = error
        assert failure is not None
        raise failure

    return run(job)


@asynccontextmanager
async def session_for(wanted: Reference, endpoint: Endpoint, actions: str) -> AsyncIterator[Session]:
    """A session with the credentials that the user has for an endpoint. `actions`: ``pull`` or ``pull,push``."""
    registry = wanted.registry if not endpoint.mirror else endpoint.host
    known = credentials.find(registry, endpoint.repository)
    async with Session(endpoint, known, [f"repository:{endpoint.repository}:{actions}"]) as session:
        yield session


async def _from(
    session: Session,
    wanted: Reference,
    name: str,
    store: Store,
    watcher: Watcher,
    steps: load.Progress,
    platform: Platform | None,
) -> Pulled:
    known = [record for record in store.own_records() if record.name == name]
    if known and platform is None and (digest := _digest_of(known[0])):
        answer = wanted.digest or await manifests.digest_of(session, wanted)
        if answer == digest and _complete(store, known[0]):
            return Pulled(wanted, digest, known[0].image, False)
    described = await manifests.describe(session, wanted, platform)
    with Workspace(store) as workspace:
        image = await _bring(session, described, name, workspace, watcher, steps)
    source = f"{wanted.name}@{described.digest}"
    change_index(store, lambda records: load.added(records, [image], source, True))
    return Pulled(wanted, described.digest, image.image, all(record.image != image.image for record in known))


async def _bring(
    session: Session, described: Described, name: str, workspace: Workspace, watcher: Watcher, steps: load.Progress
) -> load.Loaded:
    """Fetch what the store lacks while a thread takes it in."""
    store = workspace.store
    layers, downloads = _layers(session, described, store, watcher)
    found = described.found(name, layers)
    failure: BaseException | None = None
    loaded: list[load.Loaded] = []
    limit = trio.CapacityLimiter(AT_ONCE)
    try:
        async with trio.open_nursery() as nursery:
            for download in downloads:
                nursery.start_soon(download.run, session, watcher, limit)
            try:
                loaded = await trio.to_thread.run_sync(load.bring, [found], workspace, steps, session.endpoint.where)
            except Exception as error:  # noqa: BLE001 (out of the nursery it would come in a group)
                failure = error
            nursery.cancel_scope.cancel()
    finally:
        for download in downloads:
            download.close()
    if failure is not None:
        raise failure
    return loaded[0]


def _layers(
    session: Session, described: Described, store: Store, watcher: Watcher
) -> tuple[list[LayerSource], list[Download]]:
    """The layers as the store takes them in, and the downloads of those that it has not, the largest first."""
    layers: list[LayerSource] = []
    downloads: dict[str, Download] = {}
    for layer, diff_id in zip(described.manifest.layers, described.config.diff_ids, strict=True):
        label = f"{session.endpoint.where}: layer {layer.hex[:12]}"
        blob = downloads.get(layer.digest)
        if blob is None and not os.path.exists(store.blob(layer.hex)):
            blob = downloads[layer.digest] = Download(store, layer)
        elif blob is None:
            watcher.end(layer.digest, "Already exists")
        layers.append(LayerSource(label, blob, diff_id, layer))
    return layers, sorted(downloads.values(), key=lambda download: -download.size)


def _digest_of(record: Record) -> str:
    """What the record's name led to when it was pulled; empty for one that was loaded."""
    return record.source.partition("@")[2]


def _complete(store: Store, record: Record) -> bool:
    layers = store.manifest(record.manifest.hex).layers
    return all(os.path.exists(store.blob(layer.hex)) for layer in layers)


def all_tags(wanted: Reference, registries: Registries, insecure: bool | None = None) -> list[Reference]:
    """A reference for every tag of a repository."""

    async def job() -> list[Reference]:
        endpoint = registries.endpoints(wanted, insecure)[-1]
        async with session_for(wanted, endpoint, "pull") as session:
            return [wanted._replace(tag=tag) for tag in await tags(session)]

    return run(job)


async def tags(session: Session) -> Sequence[str]:
    """All tags of a repository (distribution specification, "Listing Tags"), following the pages."""
    from launcher.image import typed

    found: list[str] = []
    path: str | None = session.path("tags/list?n=1000")
    while path:
        data, headers = await session.document(path)
        found += typed.Fields(typed.load(data, "list of tags"), "list of tags").texts("tags")
        path = next_page(headers.get("Link", ""))
    return found


def next_page(link: str) -> str | None:
    """The target of ``<...>; rel="next"`` (RFC 8288)."""
    target, _, rest = link.partition(">")
    return target.removeprefix("<") if target.startswith("<") and "next" in rest else None
