"""IMAGE on any command line: a name or id in the store, the path of an archive or layout, or ``host``.

On the way of every start: whatever a loaded image does not need is imported where it is used.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from launcher.errors import UfsError
from launcher.image import reference
from launcher.image.oci import ImageConfig
from launcher.image.store import Record, Store

if TYPE_CHECKING:
    from unionfs.image.tree import CompiledImage
    from unionfs.tree import Tree

HOST = "host"
_HOST_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_INHERITED = ("LANG", "LC_ALL", "TZ")
_NEAR = 3  # names that are suggested
_FAILED = 125


class Image(Protocol):
    """What a command needs of an image. `id` is the config's digest in hexadecimal, None for the host."""

    name: str
    id: str | None
    config: ImageConfig

    def open_tree(self) -> Tree:
        """The image's files. The tree is the caller's to close."""


class StoredImage:
    """An image of the store."""

    def __init__(self, store: Store, record: Record, name: str) -> None:
        self.name = name
        self.id: str | None = record.image
        self.config = store.config(record.image)
        self._store = store
        self._record = record
        self._layers = [store.layer(digits) for digits in self.config.diff_ids]
        if not all(map(os.path.exists, [store.index(record.image), *self._layers])):
            self._rebuild()

    @property
    def layer_paths(self) -> list[str]:
        """The uncompressed layers, the lowest first."""
        return list(self._layers)

    def open_tree(self) -> CompiledImage:
        """The compiled image; compiled again where its index is of another version or damaged."""
        from unionfs.image.format import BadIndex
        from unionfs.image.tree import CompiledImage

        try:
            return CompiledImage(self._store.index(self._record.image), self._layers)
        except (BadIndex, FileNotFoundError):
            self._rebuild()
        return CompiledImage(self._store.index(self._record.image), self._layers)

    def _rebuild(self) -> None:
        from launcher.image.load import rebuild

        manifest = self._store.manifest(self._record.manifest.hex)
        rebuild(self._store, self._record.image, manifest, self.config)
        self._layers = [self._store.layer(digits) for digits in self.config.diff_ids]


class HostImage:
    """The machine's own root directory, without the store: that could contain itself."""

    def __init__(self, store: Store) -> None:
        self.name = HOST
        self.id: str | None = None
        self._store = store
        from launcher.image.platforms import this_machine

        environment = [f"PATH={_HOST_PATH}"]
        environment += [f"{name}={os.environ[name]}" for name in _INHERITED if name in os.environ]
        environment.append(f"HOME={os.path.expanduser('~')}")
        # As on the host itself: a program that works on a copy of somebody's files begins where they are.
        self.config = ImageConfig(this_machine(), [], cmd=[_shell()], env=environment, working_dir=_here())

    def open_tree(self, skip: tuple[bytes, ...] = ()) -> Tree:
        """Live directories. `skip` are absolute paths that must not even be looked at: see DirectoryStack."""
        from unionfs.live.directories import DirectoryStack

        root = self._store.root
        hide, hold = [], []
        if os.path.exists(root):
            hide.append(_identity(root))
            hold.append(_identity(os.path.join(root, "..")))
        return DirectoryStack([b"/"], hide=hide, hold=hold, skip=skip)


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


class NoImage(UfsError):
    """The store has no image of a name that could be one."""


def is_reference(name: str) -> bool:
    """Whether a name is one that a registry may have: no path, no ``host``, by its form a reference."""
    if name == HOST or _is_path(name):
        return False
    try:
        reference.parse(name)
    except UfsError:
        return False
    return True


def _is_path(name: str) -> bool:
    return name.startswith(("/", "./", "../", "~")) or name in (".", "..")


def resolve(name: str, store: Store) -> StoredImage | HostImage:
    """The image that `name` means. UfsError (status 125) where there is none.

    ``host``, then a path that begins with / . or ~, then a reference, then an id or its beginning, and last
    any existing path. An archive is loaded when it is not in the store as it is now.
    """
    if name == HOST:
        return HostImage(store)
    if _is_path(name):
        return _of_path(os.path.expanduser(name), store)
    records = store.records()
    record = find(name, records)
    if record is not None:
        return StoredImage(store, record, record.name or record.image[:12])
    if os.path.exists(name):
        return _of_path(name, store)
    raise unknown(name, records)


def find(name: str, records: list[Record]) -> Record | None:
    """The record that a reference, an id or the beginning of one means. UfsError where it is ambiguous."""
    try:
        wanted: reference.Reference | None = reference.parse(name)
    except UfsError:  # it may still be an id, as sha256:...; who calls this says what is wrong otherwise
        wanted = None
    if wanted is not None:
        for record in records:
            if record.name and _means(wanted, record):
                return record
    prefix = reference.id_prefix(name)
    matches = {record.image: record for record in reversed(records) if prefix and record.image.startswith(prefix)}
    if len(matches) > 1:
        ids = ", ".join(sorted(image[:12] for image in matches))
        raise UfsError(f"{name!r} is the beginning of several image ids: {ids}; give more digits", _FAILED)
    if matches:
        return next(iter(matches.values()))
    is_short = wanted is not None and wanted.digest is None and "/" not in name
    return _by_last_component(wanted, records) if wanted is not None and is_short else None


def _by_last_component(wanted: reference.Reference, records: list[Record]) -> Record | None:
    """The one image of another registry that has this short name, as podman's ``localhost/NAME``; None for several."""
    last = wanted.repository.rpartition("/")[2]
    named = [(record, reference.parse(record.name)) for record in records if record.name]
    found = [record for record, have in named if have.repository.rpartition("/")[2] == last and have.tag == wanted.tag]
    return found[0] if len(found) == 1 else None


def unknown(
    name: str, records: list[Record], status: int = _FAILED, more: str = ", ufs pull NAME or ufs load ARCHIVE adds"
) -> UfsError:
    """No such image: with the names that are like it, and what can be done (`more`: beside listing what there is)."""
    import difflib

    from launcher.image import foreign

    looks_like = foreign.explain(name)
    if looks_like:
        return UfsError(looks_like, status)
    reference.id_prefix(name) or reference.parse(name)  # a name that cannot be one is told so
    names = {reference.parse(record.name).familiar: record.name for record in records if record.name}
    shorter = {reference.parse(full).familiar_name: familiar for familiar, full in names.items()}
    near = difflib.get_close_matches(name, [*names, *shorter], _NEAR)
    near = list(dict.fromkeys(shorter.get(found, found) for found in near))
    meant = f"did you mean {' or '.join(near)}?"
    hint = meant if near else f"ufs images lists what there is{more}"
    return NoImage(f"no image {name!r}; {hint}", status)


def _means(wanted: reference.Reference, record: Record) -> bool:
    if wanted.digest is None:
        return record.name == str(wanted)
    have = reference.parse(record.name)
    same_name = have.name == wanted.name and wanted.tag in (None, have.tag)
    # What a registry's name led to may be the digest of an index; the record's source then says so.
    return same_name and wanted.digest in (record.manifest.digest, record.source.partition("@")[2])


def _of_path(path: str, store: Store) -> StoredImage:
    """The image of an archive or layout: as loaded before, if it has not changed since."""
    if not os.path.exists(path):
        raise UfsError(f"{path}: no such file; give the path of an image archive or an OCI layout", _FAILED)
    from launcher.image.source import identify

    key = identify(path)
    found = [record for record in store.records() if key and record.source == key]
    if not found:
        from launcher.image.load import load

        load(path, store, named=False)
        found = [record for record in store.records() if key and record.source == key]
    images = {record.image: record for record in found}
    if len(images) > 1:
        raise UfsError(f"{path} holds {len(images)} images; ufs load it and give the name of one", _FAILED)
    record = next(iter(images.values()))
    return StoredImage(store, record, path)


def _here() -> str:
    """The current directory, or / where it is gone."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "/"


def _shell() -> str:
    """The user's own shell, where it is one that every root has a use for."""
    shell = os.environ.get("SHELL", "")
    return shell if shell.startswith("/") and os.access(shell, os.X_OK) else "/bin/sh"
