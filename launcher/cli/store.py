"""`ufs tag`, `ufs history`, `ufs save`, `ufs df`, `ufs fsck`."""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from launcher.cli import listing, output
from launcher.cli.images import ImageName, age_of
from launcher.errors import UfsError, printable
from launcher.image.resolve import find, unknown
from launcher.image.store import Record, Store

if TYPE_CHECKING:
    from launcher.image.check import Flaw
    from launcher.image.oci import Step


def _record(name: str, store: Store) -> Record:
    records = store.records()
    record = find(name, records)
    if record is None:
        raise unknown(name, records)
    return record


@click.command(
    epilog="""\b
Example:
  ufs tag alpine registry.example/me/base:1
"""
)
@click.argument("image", type=ImageName())
@click.argument("name", metavar="NAME[:TAG]")
def tag(image: str, name: str) -> None:
    """Give an image a further name. A name that another image has moves."""
    from launcher.image.tag import tag as add_name

    add_name(image, name, Store())


@click.command(
    epilog="""\b
Examples:
  ufs history alpine
  ufs history --no-trunc --json alpine
"""
)
@click.argument("image", type=ImageName())
@click.option("--no-trunc", is_flag=True, help="Whole commands.")
@click.option("-q", "--quiet", is_flag=True, help="Layers only.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array, sizes in bytes.")
@click.option("--format", "format_", metavar="TEMPLATE", help="table, json, or a Go template; with table before it.")
def history(image: str, no_trunc: bool, quiet: bool, as_json: bool, format_: str | None) -> None:
    """How an image was made, the newest step first, with the size of the layer that each step made."""
    store = Store()
    record = _record(image, store)
    diff_ids = iter(store.config(record.image).diff_ids)
    rows = []
    for step in store.history(record.image):
        layer = None if step.empty_layer else next(diff_ids, None)
        path = store.layer(layer) if layer else ""
        rows.append((layer, step, os.path.getsize(path) if path and os.path.exists(path) else 0))
    rows.reverse()
    if as_json:
        keys = ("diff_id", "created", "created_by", "comment", "size")
        listed = [(layer, step.created, step.created_by, step.comment, size) for layer, step, size in rows]
        print(json.dumps([dict(zip(keys, row, strict=True)) for row in listed], indent=1))
        return
    fields = [_step(*row, no_trunc) for row in rows]
    if quiet:
        for line in fields:
            click.echo(line["ID"])
        return
    listing.show_or_table(format_, _STEPS, _STEP_HEADERS, fields)


_STEP_HEADERS = {
    "ID": "LAYER",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "CreatedBy": "CREATED BY",
    "Size": "SIZE",
    "Comment": "COMMENT",
}
_STEPS = ("ID", "CreatedSince", "CreatedBy", "Size", "Comment")


def _step(layer: str | None, step: Step, size: int, whole: bool) -> dict[str, str]:
    made = " ".join(step.created_by.split())
    return {
        "ID": "<missing>" if layer is None else layer if whole else layer[:12],
        "CreatedSince": age_of(step.created),
        "CreatedAt": step.created,
        "CreatedBy": made if whole or len(made) <= 45 else made[:44] + "…",
        "Size": output.size(size),
        "Comment": step.comment,
    }


@click.command(
    epilog="""\b
Examples:
  ufs save -o alpine.tar alpine
  ufs save alpine debian | ssh host docker load
  ufs save --format oci-archive -o two.tar tool:1 tool:2
"""
)
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=ImageName())
@click.option("-o", "--output", "path", metavar="FILE", type=click.Path(), help="Instead of standard output.")
@click.option(
    "--format", "form", type=click.Choice(["docker-archive", "oci-archive"]), default="docker-archive",
    show_default=True, help="An oci-archive keeps every digest.",
)  # fmt: skip
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def save(images: tuple[str, ...], path: str | None, form: str, quiet: bool) -> None:
    """Write images as an archive that docker, podman and skopeo load."""
    from launcher.image import save as saving

    store = Store()
    records = [_record(name, store) for name in images]
    if path is None and sys.stdout.isatty():
        raise UfsError("not writing an archive to a terminal: say -o FILE, or send it to a pipe")
    with output.Progress(quiet) as progress:
        if path is None:
            saving.save(records, store, form, sys.stdout.buffer, progress)
            sys.stdout.buffer.flush()
            return
        temporary = f"{path}.{os.getpid()}.tmp"
        with ExitStack() as failed:
            failed.callback(_unlink, temporary)
            with open(temporary, "xb") as out:
                saving.save(records, store, form, out, progress)
            os.rename(temporary, path)
            failed.pop_all()


def _unlink(path: str) -> None:
    if os.path.lexists(path):
        os.unlink(path)


@click.command(
    epilog="""\b
Examples:
  ufs df
  ufs df --json
"""
)
@click.option("--json", "as_json", is_flag=True, help="One JSON array, sizes in bytes.")
@click.option("--format", "format_", metavar="TEMPLATE", help="table, json, or a Go template; with table before it.")
def df(as_json: bool, format_: str | None) -> None:
    """What the store takes on the disk, and what of it could be freed.

    Images: by removing those that no container uses. Compressed blobs: a layer is kept compressed, for push and save,
    beside its uncompressed tar; what only the former takes is shown.
    Local volumes: by ufs volume prune --all. The rest goes with ufs prune.
    """
    from launcher.container import volumes
    from launcher.image.remove import used_images
    from launcher.image.usage import usage

    store = Store()
    found = usage(store, set(used_images(store)))
    found.append(volumes.usage(store.root))
    if as_json:
        print(json.dumps([row._asdict() for row in found], indent=1))
        return
    rows = []
    for row in found:
        share = f" ({100 * row.reclaimable // row.size}%)" if row.size else ""
        counts = str(row.total), str(row.active)
        rows.append((row.kind, *counts, output.size(row.size), output.size(row.reclaimable) + share))
    listing.show_or_table(format_, list(_USAGE), _USAGE, [dict(zip(_USAGE, row, strict=True)) for row in rows])


_USAGE = {
    "Type": "TYPE",
    "TotalCount": "TOTAL",
    "Active": "ACTIVE",
    "Size": "SIZE",
    "Reclaimable": "RECLAIMABLE",
}


@click.command(
    epilog="""\b
Examples:
  ufs fsck
  ufs fsck --repair
"""
)
@click.option("--repair", "mend", is_flag=True, help="Make derived files again; fetch blobs again where that can be.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def fsck(mend: bool, quiet: bool) -> int:
    """Verify the store: every blob, layer and index that an image needs. Exit status 1 where something is wrong."""
    from launcher.image import check

    store = Store()
    with output.Progress(quiet) as progress:
        flaws = check.check(store, progress)
    for flaw in flaws:
        needed = f" (needed by {', '.join(image[:12] for image in flaw.images)})" if flaw.images else ""
        print(printable(f"{flaw.path}: {flaw.reason}{needed}"))
    if mend and flaws:
        flaws = check.repair(store, flaws)
        flaws = [flaw for flaw in flaws if not _fetched(flaw, store, quiet)]
        for flaw in flaws:
            output.warn(
                f"{flaw.path}: not mended: remove its image (ufs rmi -f {flaw.images[0][:12]}) and load it again"
            )
        if not flaws:
            print("All of it is mended.")
    return 1 if flaws else 0


def _fetched(flaw: Flaw, store: Store, quiet: bool) -> bool:
    """Fetch a blob again from where its image came from, if that is known and still has it."""
    from launcher.cli.transfers import Transfers
    from launcher.image import reference
    from launcher.image.load import Silent
    from launcher.registry.endpoints import Registries
    from launcher.registry.pull import pull

    sources = [record for record in store.own_records() if record.image in flaw.images and "@" in record.source]
    for record in sources:
        wanted = reference.parse(record.name)._replace(digest=record.source.partition("@")[2])
        if os.path.exists(flaw.path) and flaw.path.startswith(store.path("")):
            os.unlink(flaw.path)
        try:
            with Transfers("Downloading", quiet) as transfers:
                pull(wanted, store, Registries.read(), transfers, Silent(), named=record.name)
        except UfsError as error:
            output.warn(str(error))
            continue
        return True
    return False
