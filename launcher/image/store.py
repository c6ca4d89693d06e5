"""Where images are kept, and reading them. Writing is `launcher.image.workspace`.

The layout is drawn in docs/store.md. Importing and reading cost little: this is on the way of `ufs-run`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, NamedTuple

from launcher.errors import UfsError, complain, describe
from launcher.image import oci, reference, typed
from launcher.image.place import VERSION, Place, read

__all__ = ["VERSION", "Other", "Record", "Store", "default_root"]

IMAGE_ANNOTATION = "ufs.image"
"""In index.json: the image id (hexadecimal config digest), so that a look-up reads no manifest."""

SOURCE_ANNOTATION = "ufs.source"
"""In index.json: the `Record.source` that an image was loaded from."""

ADDITIONAL = "UFS_ADDITIONAL_STORES"
"""Environment: directories of stores that are only read, separated by colons, the first the most important."""

_told: set[str] = set()
"""What this process has said of additional stores: each once."""


class Record(NamedTuple):
    """One entry of index.json. An image with several names has several, one without a name has one."""

    manifest: oci.Descriptor
    name: str
    """Normalised reference, or empty."""
    image: str
    """Image id: hexadecimal digits of the config's digest."""
    source: str = ""
    """Device, inode, size and mtime of the archive given in place of a name, or empty."""
    through: oci.Descriptor | None = None
    """What another tool's entry names where that is an index; `manifest` is then this machine's of those in it."""
    place: str = ""
    """The root of the additional store that has it; empty for the own one."""

    def descriptor(self) -> oci.Descriptor:
        """As an entry of index.json."""
        annotations = {
            oci.REF_NAME: self.name,
            IMAGE_ANNOTATION: self.image if self.through is None else "",
            SOURCE_ANNOTATION: self.source,
        }
        named = {key: value for key, value in annotations.items() if value}
        return (self.through or self.manifest)._replace(annotations=named)


class Other(NamedTuple):
    """An entry of index.json that is no image for this machine, as it is written. `damaged`: nor anything else."""

    document: Any
    name: str
    reason: str
    damaged: bool


class Store:
    """The images that there are: those of the own store, and of additional ones that are only read.

    Nothing is created by looking. `blob`, `layer` and `index` say where something is: in the own store, else in the
    first additional one that has it; where it belongs in the own store if nobody has it. Who writes asks `own`.
    """

    def __init__(self, root: str | None = None, additional: Iterable[str] | None = None) -> None:
        self.own = Place(root or default_root())
        self.root = self.own.root
        self._roots = additional

    @cached_property
    def additional(self) -> list[Place]:
        """The additional stores that can be read."""
        roots = self._roots if self._roots is not None else os.environ.get(ADDITIONAL, "").split(":")
        found = {os.path.abspath(root): Place(os.path.abspath(root)) for root in roots if root}
        found.pop(os.path.abspath(self.root), None)
        return [place for place in found.values() if _readable(place)]

    def path(self, *parts: str) -> str:
        """A path beneath the own store's root."""
        return self.own.path(*parts)

    def blob(self, digits: str) -> str:
        """The file of a blob."""
        return self._where(Place.blob, digits)

    def layer(self, diff_id: str) -> str:
        """The uncompressed tar of a layer."""
        return self._where(Place.layer, diff_id)

    def index(self, image: str) -> str:
        """The compiled index of an image."""
        return self._where(Place.index, image)

    def _where(self, kind: Callable[[Place, str], str], key: str) -> str:
        own = kind(self.own, key)
        if not self.additional or os.path.exists(own):
            return own
        return next(filter(os.path.exists, (kind(place, key) for place in self.additional)), own)

    def records(self) -> list[Record]:
        """All images, the own ones first; none where there is no store yet."""
        return self.own_records() + self.additional_records()

    def additional_records(self) -> list[Record]:
        """The images of the additional stores."""
        found = []
        for place in self.additional:
            try:
                found += [record._replace(place=place.root) for record in self._survey(place)[0]]
            except (UfsError, OSError) as error:
                _tell(place.root, describe(error))
        return found

    def own_records(self) -> list[Record]:
        """The images of the own store: what can be changed."""
        return self._survey(self.own)[0]

    def survey(self) -> tuple[list[Record], list[Other]]:
        """The images of the own store, and the entries of its index.json that are none for this machine."""
        return self._survey(self.own)

    def described(self, record: Record) -> tuple[oci.Manifest, oci.ImageConfig]:
        """The documents of an image. UfsError where they are missing or damaged."""
        return self.manifest(record.manifest.hex), self.config(record.image)

    def config(self, image: str) -> oci.ImageConfig:
        """The configuration of an image by its id."""
        return oci.config(self._document(image), f"config of image {image[:12]}")

    def history(self, image: str) -> list[oci.Step]:
        """How an image was made, the oldest step first."""
        return oci.history(self._document(image), f"config of image {image[:12]}")

    def manifest(self, digits: str) -> oci.Manifest:
        """A manifest by the digits of its digest."""
        return self.manifest_and_bytes(digits)[0]

    def manifest_and_bytes(self, digits: str) -> tuple[oci.Manifest, bytes]:
        """A manifest, and as it is written."""
        data = self._blob_bytes(digits)
        return oci.manifest(typed.load(data, self.blob(digits)), f"manifest {digits[:12]}"), data

    def document(self, image: str) -> dict[str, Any]:
        """The configuration of an image as it is written: an object, for whoever changes some of it."""
        found = self._document(image)
        if not isinstance(found, dict):
            raise UfsError(f"config of image {image[:12]} is not a JSON object; load the image again")
        return found

    def _document(self, digits: str) -> object:
        return typed.load(self._blob_bytes(digits), self.blob(digits))

    def _blob_bytes(self, digits: str) -> bytes:
        path = self.blob(digits)
        data = read(path)
        if data is None:
            raise UfsError(f"{path} is missing from the store; load the image again")
        return data

    def _survey(self, place: Place) -> tuple[list[Record], list[Other]]:
        """The entries of a store. One that is none, or damaged, must not hide the others."""
        records: list[Record] = []
        others: list[Other] = []
        what = place.path("index.json")
        for number, item in enumerate(place.entries()):
            name = ""
            try:
                entry = oci.descriptor(item, f"{what}, manifest {number}")
                name = entry.annotations.get(oci.REF_NAME, "") or entry.digest
                if entry.artifact:
                    raise oci.NotAnImage(f"{what}: {name} is an artifact")
                records.append(self._record(entry, what))
            except oci.NotAnImage as error:
                others.append(Other(item, name, str(error), False))
            except (UfsError, OSError) as error:
                others.append(Other(item, name, describe(error), True))
        return _one_for_each_name(records), others

    def _record(self, entry: oci.Descriptor, what: str) -> Record:
        image = entry.annotations.get(IMAGE_ANNOTATION, "")
        name = entry.annotations.get(oci.REF_NAME, "")
        source = entry.annotations.get(SOURCE_ANNOTATION, "")
        if image:
            oci.check_digest("sha256:" + image, what)
            return Record(entry, name, image, source)
        # Put there by another tool: what it calls a name may be none at all.
        manifest = self._of_this_machine(entry)
        index = entry if manifest is not entry else None
        return Record(manifest, reference.normalised(name), self.manifest(manifest.hex).config.hex, source, index)

    def _of_this_machine(self, entry: oci.Descriptor) -> oci.Descriptor:
        """The manifest that an entry leads to through indexes, if it is one. NotAnImage where it has none for here.

        An index need not have all that it names: then it may still be an image on another machine.
        """
        one = entry
        for _ in range(oci.MAX_NESTING + 1):
            if one is not entry and not os.path.exists(self.blob(one.hex)):
                raise oci.NotAnImage(f"{entry.digest}: its manifest {one.digest} for this machine is not in the store")
            value, what = self._document(one.hex), f"manifest {one.hex[:12]}"
            if not oci.is_index(one.media_type, value, what):
                return one
            from launcher.image import platforms

            try:
                one = platforms.choose(oci.index(value, what), None, what)
            except typed.BadDocument:
                raise
            except UfsError as error:
                raise oci.NotAnImage(str(error)) from None
        raise typed.BadDocument(f"{one.digest}: indexes are nested more than {oci.MAX_NESTING} deep")


def _one_for_each_name(records: list[Record]) -> list[Record]:
    """Who adds to a store that is not ours appends: the last of a name has it, as if it had been given by `ufs tag`."""
    last = {record.name: number for number, record in enumerate(records) if record.name}
    if len(last) == sum(1 for record in records if record.name):
        return records
    named = [record for number, record in enumerate(records) if last.get(record.name) == number]
    images = {record.image for record in named}
    return named + list({one.image: one._replace(name="") for one in records if one.image not in images}.values())


def _readable(place: Place) -> bool:
    try:
        os.stat(place.path("index.json"))
        place.check_version()
    except (UfsError, OSError) as error:
        _tell(place.root, describe(error))
        return False
    return True


def _tell(root: str, reason: str) -> None:
    if root not in _told:
        _told.add(root)
        complain(f"additional store {root} is passed over: {reason}")


def default_root() -> str:
    """``$UFS_ROOT``, else ``$XDG_DATA_HOME/ufs``, else ``~/.local/share/ufs``."""
    root = os.environ.get("UFS_ROOT")
    if root:
        return os.path.abspath(root)
    data = os.environ.get("XDG_DATA_HOME", "")
    # A relative path there is invalid and to be ignored (XDG Base Directory Specification).
    if not data.startswith("/"):
        home = os.path.expanduser("~")
        if home == "~":
            raise UfsError("no home directory is known for the store; set UFS_ROOT to a directory")
        data = os.path.join(home, ".local", "share")
    return os.path.join(data, "ufs")
