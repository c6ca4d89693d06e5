"""`ufs volume`: directories of the store that outlive containers."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import click

from launcher.cli import filters, listing, output
from launcher.cli.main import LazyGroup
from launcher.cli.template import Map, Template
from launcher.container import catalogue, documents, settings, volumes
from launcher.container.usage import written
from launcher.container.volumes import Known
from launcher.errors import UfsError
from launcher.image.store import Store

_TABLE = "{{.Driver}}\t{{.Name}}"
_HEADERS = {
    "Driver": "DRIVER",
    "Name": "VOLUME NAME",
    "Scope": "SCOPE",
    "Mountpoint": "MOUNTPOINT",
    "Labels": "LABELS",
    "Links": "LINKS",
    "Size": "SIZE",
    "CreatedAt": "CREATED AT",
}
_LISTED = ("name", "label", "driver", "dangling")
_PRUNED = ("label", "label!", "all")
_WORDS = {"true": True, "1": True, "false": False, "0": False}


@click.command("create")
@click.option("-d", "--driver", default="local", metavar="NAME", help="local is the only one.")
@click.option("-l", "--label", "labels", multiple=True, metavar="K=V", help="Set a label.")
@click.option("-o", "--opt", "options", multiple=True, metavar="K=V", help="local has none.")
@click.argument("name", metavar="[NAME]", required=False)
def create(driver: str, labels: tuple[str, ...], options: tuple[str, ...], name: str | None) -> None:
    """Make a volume and print its name; one that is there stays as it is."""
    if driver != "local":
        raise UfsError(f"--driver {driver}: volumes are directories of the store, which is the driver local")
    for option in options:
        raise UfsError(
            f"--opt {option}: a volume is a directory of the store; for another directory run with -v DIRECTORY:DST, "
            "for memory with --tmpfs DST"
        )
    from launcher.image import workspace
    from launcher.sandbox import idmap

    wanted = volumes.checked(name, 1) if name is not None else volumes.new_name()
    store = Store()
    workspace.create(store)
    ids = idmap.choose().map
    volumes.create(store.root, volumes.Made(wanted, time.time(), settings.labels({}, labels), ids, name is None))
    click.echo(wanted)


@click.command(
    "ls",
    epilog="""\b
Examples:
  ufs volume ls --filter dangling=true
  ufs volume ls --format '{{.Name}}: {{.Mountpoint}}'
""",
)
@click.option("-f", "--filter", "wanted", multiple=True, metavar="K=V", help=f"Only these: {', '.join(_LISTED)}.")
@click.option("-q", "--quiet", is_flag=True, help="Names only.")
@click.option("--format", "format_", metavar="TEMPLATE", help="table, json, or a Go template; with table before it.")
def ls(wanted: tuple[str, ...], quiet: bool, format_: str | None) -> None:
    """List volumes."""
    root, chosen = Store().root, _filters(wanted, _LISTED)
    used = volumes.users(catalogue.every(root))
    found = [known for known in volumes.every(root) if _fits(chosen, known, used)]
    if quiet:
        for known in found:
            click.echo(known.name)
        return
    sizes = format_ is not None and ".Size" in format_
    listing.show(format_, _TABLE, _HEADERS, [_row(known, used, sizes) for known in found])


@click.command("inspect")
@click.option("-f", "--format", "format_", metavar="TEMPLATE", help="A Go template, or json.")
@click.argument("names", metavar="VOLUME...", nargs=-1, required=True)
def inspect(format_: str | None, names: tuple[str, ...]) -> None:
    """Show all that is known of volumes, in Docker's words."""
    template = Template(listing.unescaped(format_)) if format_ not in (None, "json") else None
    root, found, failed = Store().root, [], False
    for name in names:
        try:
            found.append(documents.of_volume(volumes.find(root, name)))
        except UfsError as error:
            click.echo(f"ufs: {error}", err=True)
            failed = True
    if template is not None:
        for document in found:
            click.echo(template.render(document | {"Labels": Map(document["Labels"] or {})}))
    else:
        click.echo(json.dumps(found, indent=None if format_ == "json" else 4, ensure_ascii=False))
    if failed:
        raise SystemExit(1)


@click.command("rm")
@click.option("-f", "--force", is_flag=True, help="One that is not there is no error.")
@click.argument("names", metavar="VOLUME...", nargs=-1, required=True)
def rm(force: bool, names: tuple[str, ...]) -> None:
    """Remove volumes that no container has, with everything in them."""
    root, failed = Store().root, False
    for name in names:
        try:
            if force and name not in {known.name for known in volumes.every(root)}:
                continue
            volumes.find(root, name)  # before anything is written: the store may be read-only, or not there
            volumes.remove(root, name)
        except UfsError as error:
            click.echo(f"ufs: {error}", err=True)
            failed = True
        else:
            click.echo(name)
    if failed:
        raise SystemExit(1)


@click.command("prune")
@click.option("-a", "--all", "everything", is_flag=True, help="Also those that have a name.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("--filter", "wanted", multiple=True, metavar="K=V", help="Only these: label, label!.")
def prune(everything: bool, force: bool, wanted: tuple[str, ...]) -> None:
    """Remove the anonymous volumes that no container has."""
    chosen = _filters(wanted, _PRUNED)
    everything = everything or chosen.pop("all", ["false"])[-1] in ("true", "1")
    if not force:
        kind = "all volumes" if everything else "all anonymous volumes"
        click.echo(f"This removes {kind} that no container has.")
        click.confirm("Are you sure you want to continue?", abort=True)
    root = Store().root
    for container in catalogue.every(root):
        if container.trouble:  # what it has is not known
            raise UfsError(f"container {container.name} is damaged ({container.trouble}): remove that first (ufs rm)")
    volumes.sweep(root)
    doomed = [
        known.name
        for known in volumes.every(root)
        if (everything or (known.made and known.made.anonymous)) and _fits(chosen, known, {})
    ]
    removed = list(volumes.remove_unused(root, doomed))
    if removed:
        click.echo("Deleted Volumes:\n" + "\n".join(name for name, _ in removed) + "\n")
    click.echo(f"Total reclaimed space: {output.size(sum(size for _, size in removed))}")


def _filters(texts: tuple[str, ...], keys: tuple[str, ...]) -> filters.Chosen:
    found = filters.parse(texts, keys)
    for key in ("dangling", "all"):
        for value in found.get(key, []):
            if value not in _WORDS:
                raise UfsError(f"--filter {key}={value}: this has to be true or false")
    return found


def _fits(chosen: filters.Chosen, known: Known, used: dict[str, list[str]]) -> bool:
    """Whether a volume has what every key asks for; of labels each one, of other keys one of the values."""

    def one(key: str, value: str) -> bool:
        if key == "name":
            return bool(re.search(value, known.name))
        if key == "driver":
            return value == "local"
        if key == "dangling":
            return (known.name not in used) == _WORDS[value]
        name, equals, wanted = value.partition("=")
        has = name in known.labels and (not equals or known.labels[name] == wanted)
        return has == (key == "label")

    return all((all if key.startswith("label") else any)(one(key, value) for value in chosen[key]) for key in chosen)


def _row(known: Known, used: dict[str, list[str]], sizes: bool) -> dict[str, Any]:
    labels = known.labels
    return {
        "Driver": "local",
        "Name": known.name,
        "Scope": "local",
        "Mountpoint": known.data,
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
        "Label": lambda key: labels.get(key, ""),
        "Links": str(len(used.get(known.name, []))),
        "Size": output.size(written(known.data)) if sizes else "N/A",
        "CreatedAt": documents.moment(int(known.created)),
    }


class _Volumes(LazyGroup):
    """The commands of `ufs volume`."""

    def commands_here(self) -> dict[str, str]:
        """Their places."""
        return {name: f"launcher.cli.volume:{name}" for name in ("create", "inspect", "ls", "prune", "rm")}


@click.command("volume", cls=_Volumes)
def volume() -> None:
    """Commands on volumes: directories of the store that outlive containers."""
