"""`tag`: a further name for an image."""

from __future__ import annotations

import os

from launcher.errors import UfsError
from launcher.image import load, reference
from launcher.image.resolve import find, unknown
from launcher.image.store import Record, Store
from launcher.image.workspace import Workspace, change_index, sync_directories


def tag(source: str, name: str, store: Store) -> None:
    """Give the image that `source` means another name, taking it from the image that has it. UfsError.

    One of an additional store gets its documents in the own one; its layers stay where they are.
    """
    wanted = reference.parse(name)
    if wanted.digest:
        raise UfsError(f"{name!r}: an image gets a name and a tag; its digest is what it is")
    records = store.records()
    record = find(source, records)
    if record is None:
        raise unknown(source, records)
    config = store.config(record.image)
    with Workspace(store) as workspace:
        for digits in (record.image, record.manifest.hex):
            if not os.path.exists(store.own.blob(digits)):
                with open(store.blob(digits), "rb") as file:
                    workspace.publish(workspace.write(file.read()), store.own.blob(digits))
        sync_directories(store)
        loaded = load.Loaded([str(wanted)], record.image, record.manifest, config)

        def change(before: list[Record]) -> list[Record]:
            if not record.place and all(one.image != record.image for one in before):
                raise unknown(source, before)  # removed meanwhile
            return load.added(before, [loaded], "", True)

        change_index(store, change)
