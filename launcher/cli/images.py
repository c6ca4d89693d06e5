"""`ufs load`, `ufs rmi`, `ufs prune`."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

import click

from launcher.cli import output
from launcher.errors import UfsError
from launcher.image import reference
from launcher.image.store import Record, Store

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from launcher.image.remove import Removed


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


@click.command(
    epilog="""\b
Examples:
  ufs rmi alpine
  ufs rmi tool:1 tool:2 3f2a9c
"""
)
@click.argument("names", metavar="IMAGE...", nargs=-1, required=True, type=ImageName())
@click.option("-f", "--force", is_flag=True, help="Also all names of an id, and images that containers use.")
@click.option("--no-prune", is_flag=True, help="Leave layers and blobs that only they used for ufs prune.")
def rmi(names: tuple[str, ...], force: bool, no_prune: bool) -> None:
    """Remove images by name or id.

    An image goes with its last name, its layers with the last image that has them.
    """
    from launcher.image.remove import remove

    _say(remove(list(names), Store(), force, not no_prune))


@click.command(
    epilog="""\b
Examples:
  ufs prune
  ufs prune -a --filter until=240h
"""
)
@click.option("-a", "--all", "everything", is_flag=True, help="Also every image that no container uses.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("--filter", "wanted", multiple=True, metavar="K=V", help="With -a, only these: until, label, label!.")
def prune(everything: bool, force: bool, wanted: tuple[str, ...]) -> None:
    """Delete what no image needs: leftovers of killed commands, layers and indexes without an image.

    With -a images that no container uses are removed before, whatever names they have.
    """
    from launcher.container import volumes
    from launcher.image.remove import prune as prune_store

    store = Store()
    if wanted and not everything:
        raise click.UsageError("--filter chooses among the images that -a removes: give both")
    if everything:
        _remove_unused(store, force, wanted)
    volumes.sweep(store.root)  # what containers left that were killed, the anonymous ones alone
    freed = prune_store(store, waiting=lambda: output.warn("waiting for a command that adds to the store"))
    print(f"Freed {output.size(freed)}")


def _remove_unused(store: Store, force: bool, wanted: tuple[str, ...]) -> None:
    from launcher.cli import imagefilters
    from launcher.cli.imagelist import rows
    from launcher.image.remove import remove_unused

    chosen = imagefilters.parse(wanted, ("until", "label", "label!"))
    if not force:
        click.echo("This removes all images that no container uses.")
        click.confirm("Are you sure you want to continue?", abort=True)
    records = store.own_records()
    images = {row.record.image for row in rows(store, records) if imagefilters.fits(chosen, row, records, store)}
    _say(remove_unused(store, images))


def _say(removed: Removed) -> None:
    for name in removed.names:
        print(f"Untagged: {reference.parse(name).familiar}")
    for image in removed.images:
        print(f"Deleted: sha256:{image}")


def selected(records: list[Record], name: str | None) -> list[Record]:
    """Those that a name without a tag, a name with one, or the beginning of an id means; all where it is None."""
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


def age_of(created: str) -> str:
    """How old, from RFC 3339; images made reproducibly say year 1 or nothing, as Docker then shows."""
    from datetime import datetime

    try:
        moment = datetime.fromisoformat(created)
        seconds = time.time() - moment.timestamp()
    except (ValueError, OverflowError):
        return "N/A"
    return "N/A" if moment.year < 1971 else output.age(seconds)
