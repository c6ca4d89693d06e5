"""`tag`: a further name for an image."""

from __future__ import annotations

from launcher.errors import UfsError
from launcher.image import load, reference
from launcher.image.resolve import find, unknown
from launcher.image.store import Record, Store
from launcher.image.workspace import change_index


def tag(source: str, name: str, store: Store) -> None:
    """Give the image that `source` means another name, taking it from the image that has it. UfsError."""
    wanted = reference.parse(name)
    if wanted.digest:
        raise UfsError(f"{name!r}: an image gets a name and a tag; its digest is what it is")

    def change(records: list[Record]) -> list[Record]:
        record = find(source, records)
        if record is None:
            raise unknown(source, records)
        loaded = load.Loaded([str(wanted)], record.image, record.manifest, store.config(record.image))
        return load.added(records, [loaded], "", True)

    if not store.records():
        raise unknown(source, [])
    change_index(store, change)
