"""`ufs images`: the images that there are."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import click

from launcher.cli import imagefilters, listing, output
from launcher.cli.images import ImageName, age_of, selected
from launcher.errors import UfsError
from launcher.image import reference
from launcher.image.oci import ImageConfig
from launcher.image.store import Other, Record, Store

_NONE = "<none>"
_HEADERS = {
    "ID": "IMAGE ID",
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "Size": "SIZE",
    "VirtualSize": "SIZE",
    "UniqueSize": "UNIQUE SIZE",
    "SharedSize": "SHARED SIZE",
    "Containers": "CONTAINERS",
    "Platform": "PLATFORM",
    "ReadOnly": "R/O",
}


class Row(NamedTuple):
    """One image under one name. `config` is None where it is damaged; `size` is in bytes."""

    record: Record
    config: ImageConfig | None
    size: int

    @property
    def created(self) -> str:
        """RFC 3339, or empty."""
        return self.config.created if self.config else ""

    @property
    def named(self) -> reference.Reference | None:
        """Its name, if it has one."""
        return reference.parse(self.record.name) if self.record.name else None

    @property
    def digest(self) -> str:
        """What its name led to where it was pulled, else its manifest's."""
        return self.record.source.partition("@")[2] or self.record.manifest.digest


@click.command(
    epilog="""\b
Examples:
  ufs images
  ufs images alpine
  ufs rmi $(ufs images -q old/tool)
  ufs images --filter dangling=true --filter label=stage=build
  ufs images --format 'table {{.Repository}}\\t{{.Digest}}'
"""
)
@click.argument("name", required=False, type=ImageName())
@click.option("-a", "--all", "everything", is_flag=True, help="Also what the store has that is no image to run.")
@click.option("--digests", is_flag=True, help="Also digests.")
@click.option("-q", "--quiet", is_flag=True, help="Image ids only.")
@click.option("--no-trunc", is_flag=True, help="Whole image ids.")
@click.option(
    "-f", "--filter", "wanted", multiple=True, metavar="K=V", help=f"Only these: {', '.join(imagefilters.KEYS)}."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON array, sizes in bytes.")
@click.option("--format", "format_", metavar="TEMPLATE", help="table, json, or a Go template; with table before it.")
def images(
    name: str | None,
    everything: bool,
    digests: bool,
    quiet: bool,
    no_trunc: bool,
    wanted: tuple[str, ...],
    as_json: bool,
    format_: str | None,
) -> None:
    """List the images in the store, the newest first; only those called NAME where it is given.

    SIZE is that of all its layers, uncompressed. In a pipe: fields separated by tabs, no header. Images of the stores
    in UFS_ADDITIONAL_STORES are listed, too; R/O says true for them.
    """
    store = Store()
    records, others = store.survey()
    records += store.additional_records()
    chosen = imagefilters.parse(wanted)
    found = [row for row in rows(store, selected(records, name)) if imagefilters.fits(chosen, row, records, store)]
    found.sort(key=lambda row: row.record.name)
    found.sort(key=lambda row: row.created, reverse=True)
    for row in found:
        if row.config is None:
            output.warn(f"image {row.record.image[:12]} is damaged: ufs fsck says more")
    for other in others:
        if other.damaged:
            output.warn(f"{other.reason} (ufs fsck --repair removes what leads to nothing)")
    if as_json:
        print(json.dumps([_document(row) for row in found], indent=1))
        return
    if quiet:
        for image in dict.fromkeys(row.record.image for row in found):
            print("sha256:" + image if no_trunc else image[:12])
        return
    users = _containers(store) if format_ and ("Containers" in format_ or format_ == "json") else {}
    lines = [_fields(row, no_trunc, users) for row in found]
    if format_ is None and everything and name is None and not wanted:
        lines += map(_fields_of_other, others)
    columns = _columns(digests, marked=format_ is None and bool(store.additional))
    listing.show_or_table(format_, columns, _HEADERS, lines)


def rows(store: Store, records: Iterable[Record]) -> list[Row]:
    """Each config is read once, and each layer looked at once."""
    known: dict[str, tuple[ImageConfig | None, int]] = {}
    sizes: dict[str, int] = {}
    for record in records:
        if record.image not in known:
            try:
                config = store.config(record.image)
            except (UfsError, OSError):
                known[record.image] = None, 0
                continue
            for digits in config.diff_ids:
                if digits not in sizes:
                    sizes[digits] = _size(store.layer(digits))
            known[record.image] = config, sum(sizes[digits] for digits in dict.fromkeys(config.diff_ids))
    return [Row(record, *known[record.image]) for record in records]


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:  # to be made again from its blob
        return 0


def _columns(digests: bool, marked: bool) -> list[str]:
    ends = ["ID", "CreatedSince", "Size", *(["ReadOnly"] if marked else [])]
    return ["Repository", "Tag", *(["Digest"] if digests else []), *ends]


def _fields_of_other(other: Other) -> dict[str, Any]:
    """In the columns of an image, for what is none."""
    digest = other.document.get("digest") if isinstance(other.document, dict) else None
    shown = "(damaged)" if other.damaged else "(no image)"
    told = {"Repository": other.name or _NONE, "Digest": str(digest or _NONE), "ID": shown, "ReadOnly": "false"}
    return dict.fromkeys(_HEADERS, _NONE) | told


def _fields(row: Row, whole: bool, users: dict[str, int]) -> dict[str, Any]:
    named, size = row.named, output.size(row.size)
    return {
        "ID": "sha256:" + row.record.image if whole else row.record.image[:12],
        "Repository": named.familiar_name if named else _NONE,
        "Tag": (named.tag if named else None) or _NONE,
        "Digest": row.digest,
        "CreatedSince": age_of(row.created),
        "CreatedAt": _moment(row.created),
        "Size": size,
        "VirtualSize": size,
        "UniqueSize": "N/A",
        "SharedSize": "N/A",
        "Containers": str(users.get(row.record.image, 0)),
        "Platform": str(row.config.platform) if row.config else "",
        "ReadOnly": "true" if row.record.place else "false",
    }


def _document(row: Row) -> dict[str, object]:
    named = row.named
    return {
        "repository": named.familiar_name if named else None,
        "tag": named.tag if named else None,
        "id": "sha256:" + row.record.image,
        "created": row.created or None,
        "size": row.size,
        "platform": str(row.config.platform) if row.config else None,
        "digest": row.record.manifest.digest,
        "read_only": bool(row.record.place),
    }


def _moment(created: str) -> str:
    """As Docker's CreatedAt."""
    seconds = imagefilters.seconds(created)
    return "N/A" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(seconds))


def _containers(store: Store) -> dict[str, int]:
    """Image id to the number of containers that were made from it."""
    from launcher.image.remove import image_users

    return {image: len(names) for image, names in image_users(store).items()}
