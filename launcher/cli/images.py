"""`ufs load`, `ufs images`, `ufs rmi`, `ufs prune`."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

import click

from launcher.cli import output
from launcher.errors import UfsError
from launcher.image import reference
from launcher.image.store import Record, Store

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_NONE = "<none>"


class ImageName(click.ParamType[str]):
    """An image on the command line; its completion offers the names in the store."""

    name = "image"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Familiar names; where nothing fits the shell completes files."""
        from click.shell_completion import CompletionItem

        names = sorted({reference.parse(record.name).familiar for record in Store().records() if record.name})
        found = [CompletionItem(name) for name in names if name.startswith(incomplete)]
        return found or [CompletionItem(incomplete, type="file")]


@click.command(
    epilog="""\b
Examples:
  ufs load alpine.tar
  docker save alpine | ufs load -
  ufs load --platform linux/arm64 ./layout
"""
)
@click.argument("path", required=False, type=click.Path())
@click.option("-i", "--input", "other", metavar="PATH", type=click.Path(), help="The same as PATH.")
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Of several platforms take this one.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def load(path: str | None, other: str | None, platform: str | None, quiet: bool) -> None:
    """Add the images of an archive or a layout directory to the store.

    PATH is a docker-archive (docker save, podman save), an oci-archive, an OCI layout directory or a directory
    that skopeo wrote as dir:; "-" is standard input. Layers may be plain or compressed with gzip, zstd, xz or
    bzip2, and so may the archive. Everything that is read is verified against its digest; what does not match is
    refused as a whole. What the store has already is not read again.
    """
    from launcher.image import foreign, platforms
    from launcher.image.load import load as load_images

    if path and other:
        raise click.UsageError("PATH and --input are the same: give one")
    path = path or other
    if path is None:
        if sys.stdin.isatty():
            raise click.UsageError("give the PATH of an archive or layout, or pipe an archive in")
        path = "-"
    wanted = platforms.parse(platform) if platform else None
    if path != "-" and not os.path.lexists(path):
        says = foreign.explain(path)
        raise UfsError(
            says or f"{path or repr(path)}: No such file or directory; give the path of an archive or layout"
        )
    with output.Progress(quiet) as progress:
        loaded = load_images(path, Store(), wanted, progress)
    for image in loaded:
        for name in image.names:
            print(f"Loaded image: {reference.parse(name).familiar}")
        if not image.names:
            print(f"Loaded image ID: sha256:{image.image}")
        if wanted is None and not platforms.matches(platforms.this_machine(), image.config.platform):
            output.warn(f"it is for {image.config.platform}, this machine is {platforms.this_machine()}")


class Row(NamedTuple):
    """One line of `ufs images`."""

    repository: str
    tag: str
    image: str
    created: str
    age: str
    size: int
    platform: str
    digest: str


@click.command(
    epilog="""\b
Examples:
  ufs images
  ufs images alpine
  ufs rmi $(ufs images -q old/tool)
  ufs images --json
"""
)
@click.argument("name", required=False, type=ImageName())
@click.option("-q", "--quiet", is_flag=True, help="Image ids only.")
@click.option("--no-trunc", is_flag=True, help="Whole image ids.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array, sizes in bytes.")
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", help="table or json.")
def images(name: str | None, quiet: bool, no_trunc: bool, as_json: bool, format_: str) -> None:
    """List the images in the store, the newest first; only those called NAME where it is given.

    SIZE is that of all its layers, uncompressed. In a pipe: fields separated by tabs, no header.
    """
    store = Store()
    rows = [_row(store, record) for record in _selected(store.records(), name)]
    rows.sort(key=lambda row: row.repository + row.tag)
    rows.sort(key=lambda row: row.created, reverse=True)
    if as_json or format_ == "json":
        print(json.dumps([_document(row) for row in rows], indent=1))
    elif quiet:
        for image in dict.fromkeys(row.image for row in rows):
            print("sha256:" + image if no_trunc else image[:12])
    else:
        output.table(
            ("REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"),
            [
                (row.repository, row.tag, row.image if no_trunc else row.image[:12], row.age, output.size(row.size))
                for row in rows
            ],
        )


@click.command(
    epilog="""\b
Examples:
  ufs rmi alpine
  ufs rmi tool:1 tool:2 3f2a9c
"""
)
@click.argument("names", metavar="IMAGE...", nargs=-1, required=True, type=ImageName())
@click.option("-f", "--force", is_flag=True, help="Also all names of an id, and images that containers use.")
def rmi(names: tuple[str, ...], force: bool) -> None:
    """Remove images by name or id.

    An image goes with its last name, its layers with the last image that has them.
    """
    from launcher.image.remove import remove

    removed = remove(list(names), Store(), force)
    for name in removed.names:
        print(f"Untagged: {reference.parse(name).familiar}")
    for image in removed.images:
        print(f"Deleted: sha256:{image}")


@click.command(
    epilog="""\b
Example:
  ufs prune
"""
)
def prune() -> None:
    """Delete what no image needs: leftovers of killed commands, layers and indexes without an image."""
    from launcher.image.remove import prune as prune_store

    freed = prune_store(Store(), waiting=lambda: output.warn("waiting for a command that adds to the store"))
    print(f"Freed {output.size(freed)}")


def _selected(records: list[Record], name: str | None) -> list[Record]:
    if name is None:
        return records
    prefix = reference.id_prefix(name)
    wanted = reference.parse(name)
    tagged = ":" in name.rpartition("/")[2] or "@" in name

    def fits(record: Record) -> bool:
        if record.name:
            have = reference.parse(record.name)
            if have.name == wanted.name and (not tagged or have.tag == wanted.tag):
                return True
        return bool(prefix) and record.image.startswith(prefix or "")

    return [record for record in records if fits(record)]


def _row(store: Store, record: Record) -> Row:
    config = store.config(record.image)
    named = reference.parse(record.name) if record.name else None
    layers = [store.layer(digits) for digits in dict.fromkeys(config.diff_ids)]
    return Row(
        named.familiar_name if named else _NONE,
        (named.tag if named else None) or _NONE,
        record.image,
        config.created,
        age_of(config.created),
        sum(os.path.getsize(layer) for layer in layers if os.path.exists(layer)),
        str(config.platform),
        record.manifest.digest,
    )


def _document(row: Row) -> dict[str, object]:
    return {
        "repository": None if row.repository == _NONE else row.repository,
        "tag": None if row.tag == _NONE else row.tag,
        "id": "sha256:" + row.image,
        "created": row.created or None,
        "size": row.size,
        "platform": row.platform,
        "digest": row.digest,
    }


def age_of(created: str) -> str:
    """How old, from RFC 3339; images made reproducibly say year 1 or nothing, as Docker then shows."""
    from datetime import datetime

    try:
        moment = datetime.fromisoformat(created)
        seconds = time.time() - moment.timestamp()
    except (ValueError, OverflowError):
        return "N/A"
    return "N/A" if moment.year < 1971 else output.age(seconds)
