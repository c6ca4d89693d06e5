"""Removing images and what nothing refers to any more."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from launcher.errors import UfsError
from launcher.image import reach, reference
from launcher.image.resolve import find, unknown
from launcher.image.store import Record, Store
from launcher.image.workspace import change_index, create, locked, sweep


class Removed(NamedTuple):
    """What `remove` did: names that are gone, and ids of images that are gone with them."""

    names: list[str]
    images: list[str]


def remove(names: list[str], store: Store, force: bool = False, sweep_after: bool = True) -> Removed:
    """Take images out of the store by name or id, and delete what only they used.

    A name goes alone as long as its image has another. UfsError, and nothing is changed, for a name that is
    unknown, an id with several names, or an image that a container uses; the latter two unless `force`. What only they
    used stays for the next `prune` without `sweep_after`.
    """
    removed = Removed([], [])

    def change(records: list[Record]) -> list[Record]:
        left = records
        for name in names:
            left = _without(name, left, store, force)
        removed.names.extend(record.name for record in records if record not in left and record.name)
        gone = {record.image for record in records} - {record.image for record in left}
        users = used_images(store)
        for image in sorted(gone):
            if image in users and not force:
                raise UfsError(
                    f"image {image[:12]} is used by container {users[image]}; remove that first, or use --force"
                )
        # A container's files lie over its image: that stays, without a name, until the container is gone.
        kept = [record._replace(name="") for record in records if record.image in gone & users.keys()]
        removed.images.extend(sorted(gone - users.keys()))
        return left + list({record.image: record for record in kept}.values())

    if not store.own_records():
        change([])  # says so
    change_index(store, change)
    if sweep_after:
        prune(store, wait=False)
    return removed


def remove_unused(store: Store, images: set[str]) -> Removed:
    """Take those of `images` (ids) that no container uses out of the store, with all their names."""
    removed = Removed([], [])

    def change(records: list[Record]) -> list[Record]:
        gone = images - used_images(store).keys()
        removed.names.extend(record.name for record in records if record.image in gone and record.name)
        removed.images.extend(sorted(gone & {record.image for record in records}))
        return [record for record in records if record.image not in gone]

    if store.own_records():
        change_index(store, change)
    return removed


def prune(store: Store, wait: bool = True, waiting: Callable[[], None] | None = None) -> int:
    """Delete temporaries of dead processes and everything that index.json does not lead to.

    Returns the bytes freed. While others add to the store, `wait` says whether to wait for them (`waiting` is
    called before) or to leave it to a later prune.
    """
    if not os.path.exists(store.root):
        return 0
    create(store)
    try:
        with locked(store, "lock", fcntl.LOCK_EX | fcntl.LOCK_NB):
            return _prune(store)
    except BlockingIOError:
        if not wait:
            return 0
    if waiting:
        waiting()
    with locked(store, "lock", fcntl.LOCK_EX):
        return _prune(store)


def _prune(store: Store) -> int:
    layers: set[str] = set()
    for record in store.own_records():
        with suppress(UfsError):  # damaged: `fsck` says so, and its layers are derived
            layers |= {digits + ".tar" for digits in store.config(record.image).diff_ids}
    # Also those of additional stores: an index that is of another version there is made here.
    images = {record.image + ".index" for record in store.records()}
    freed = sweep(store) + sweep(store, "partial")
    for directory, keep in (("blobs/sha256", reach.blobs(store.own)), ("layers", layers), ("images", images)):
        for name in os.listdir(store.path(directory)):
            if name not in keep:
                freed += _delete(store.path(directory, name))
    return freed


def _delete(path: str) -> int:
    """Delete a file; the bytes that this frees: none while it has another name."""
    status = os.lstat(path)
    os.unlink(path)
    return status.st_size if status.st_nlink == 1 else 0


def _without(name: str, records: list[Record], store: Store, force: bool) -> list[Record]:
    record = find(name, records)
    if record is None:
        elsewhere = find(name, store.records())
        if elsewhere and elsewhere.place:
            raise UfsError(f"image {name!r} is in {elsewhere.place}, which is only read: who keeps that can remove it")
        raise unknown(name, records, 1, "")
    by_name = record.name and not _is_id(name, record)
    if by_name:
        return [other for other in records if other.name != record.name]
    named = [reference.parse(other.name).familiar for other in records if other.image == record.image and other.name]
    if len(named) > 1 and not force:
        raise UfsError(f"image {record.image[:12]} has several names: {', '.join(named)}; give one, or use --force")
    return [other for other in records if other.image != record.image]


def _is_id(name: str, record: Record) -> bool:
    prefix = reference.id_prefix(name)
    return prefix is not None and record.image.startswith(prefix) and find(name, [record]) is record


def used_images(store: Store) -> dict[str, str]:
    """Image id to the name of a container that was made from it."""
    return {image: names[-1] for image, names in image_users(store).items()}


def image_users(store: Store) -> dict[str, list[str]]:
    """Image id to the names of the containers that were made from it."""
    found: dict[str, list[str]] = {}
    directory = store.path("containers")
    for identity in os.listdir(directory) if os.path.isdir(directory) else []:
        try:
            with open(os.path.join(directory, identity, "config.json")) as file:
                config = json.load(file)
        except (FileNotFoundError, NotADirectoryError):
            continue  # removed meanwhile, or not complete yet
        if config.get("image_id"):
            found.setdefault(config["image_id"], []).append(config.get("name") or identity[:12])
    return found
