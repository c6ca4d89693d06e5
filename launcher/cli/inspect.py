"""`ufs inspect`, `top`, `port`: all that is known of a container or an image."""

from __future__ import annotations

from typing import Any

import click

from launcher.cli import listing, output
from launcher.cli.template import Map, Template
from launcher.container import catalogue, state
from launcher.errors import UfsError
from launcher.image.store import Store

_FREE = ("Labels", "Ports", "PortBindings", "Networks", "Volumes")
"""Fields whose keys are names of the user's: one that is not there is no mistake in a template."""


@click.command(
    "inspect",
    epilog="""\b
Examples:
  ufs inspect web
  ufs inspect --format '{{.State.Status}} {{.State.ExitCode}}' web
  ufs inspect --format '{{range .Config.Env}}{{println .}}{{end}}' alpine
""",
)
@click.option("-f", "--format", "format_", metavar="TEMPLATE", help="A Go template, or json.")
@click.option("-s", "--size", is_flag=True, help="Also the size of what a container wrote.")
@click.option("--type", "kind", type=click.Choice(["container", "image", "volume"]), help="Only these.")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
def inspect(format_: str | None, size: bool, kind: str | None, names: tuple[str, ...]) -> None:
    """Show all that is known of containers, images and volumes, in Docker's words."""
    template = Template(listing.unescaped(format_)) if format_ not in (None, "json") else None
    store, found, failed = Store(), [], False
    for name in names:
        try:
            found.append(_document(store, name, kind, size))
        except UfsError as error:
            click.echo(f"ufs: {error}", err=True)
            failed = True
    if template is not None:
        for document in found:
            click.echo(template.render(_with_maps(document)))
    elif format_ == "json":
        click.echo(output.as_json(found))
    else:
        click.echo(output.as_json(found, indent=4))
    if failed:
        raise SystemExit(1)


@click.command("top", context_settings={"allow_interspersed_args": False})
@click.argument("container", metavar="CONTAINER")
@click.argument("options", metavar="[PS OPTION]...", nargs=-1, type=click.UNPROCESSED)
def top(container: str, options: tuple[str, ...]) -> None:
    """Show the processes of a container, as ps(1) of this machine shows them; -ef by default."""
    import subprocess

    from launcher.supervisor import pausing

    found = catalogue.find(Store().root, container)
    seen = found.observe()
    if not isinstance(seen, state.Running | state.Paused):
        raise UfsError(f"container {found.name} is not running: it is {state.name(seen)}")
    try:
        done = subprocess.run(["ps", *(options or ("-ef",))], capture_output=True, text=True, errors="replace")
    except FileNotFoundError as error:
        raise UfsError("ps is not on this machine; install procps") from error
    if done.returncode != 0:
        raise UfsError(f"ps {' '.join(options)}: {(done.stderr.strip() or 'failed').splitlines()[0]}")
    head, *lines = done.stdout.splitlines()
    if "PID" not in head.split():
        raise UfsError("what ps shows has no column PID; add it")
    column, pids = head.split().index("PID"), {str(pid) for pid in pausing.members(seen.pid)}
    fields = len(head.split())
    rows = [line.split(None, fields - 1) for line in lines]
    chosen = [row for row in rows if len(row) > column and row[column] in pids]
    listing.columns(["\t".join(row) for row in [head.split(), *chosen]])


@click.command("port")
@click.argument("container", metavar="CONTAINER")
@click.argument("port", metavar="[PORT[/PROTOCOL]]", required=False)
def port(container: str, port: str | None) -> None:
    """List published ports: none, because containers have the host's network, and their ports are its ports."""
    found = catalogue.find(Store().root, container)
    if port is not None:
        raise UfsError(f"no public port {port!r} published for {found.name}: the network is the host's")


def _document(store: Store, name: str, kind: str | None, size: bool) -> dict[str, Any]:
    from launcher.container import documents, volumes
    from launcher.image import resolve

    if kind in (None, "container"):
        try:
            container = catalogue.find(store.root, name)
            return documents.of_container(container, container.observe(), sizes=size)
        except UfsError:
            if kind == "container":
                raise
    record = resolve.find(name, store.records()) if kind != "volume" else None
    if record is None and kind != "image" and name in {known.name for known in volumes.every(store.root)}:
        return documents.of_volume(volumes.find(store.root, name))
    if record is None:
        raise UfsError(
            f"no {kind or 'container, image or volume'} {name!r}; "
            "ufs ps --all, ufs images and ufs volume ls list what there is"
        )
    return documents.of_image(store, record)


def _with_maps(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        found = {name: _with_maps(inner, name) for name, inner in value.items()}
        return Map(found) if key in _FREE else found
    return value
