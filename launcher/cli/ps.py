"""`ufs ps`: the containers that there are."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click

from launcher.cli import filters, listing, output, words
from launcher.container import catalogue, state
from launcher.container.catalogue import Container
from launcher.image.store import Store

_HEADERS = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "CreatedAt": "CREATED AT",
    "RunningFor": "CREATED",
    "State": "STATE",
    "Status": "STATUS",
    "Size": "SIZE",
    "Names": "NAMES",
    "Labels": "LABELS",
    "Mounts": "MOUNTS",
    "Networks": "NETWORKS",
    "Ports": "PORTS",
    "Label": "",
}
_TABLE = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}"
_SHOWN = 20  # characters of a command


@click.command(
    "ps",
    epilog="""\b
Examples:
  ufs ps -a
  ufs ps --filter status=exited --filter name=web
  ufs ps --format 'table {{.Names}}\\t{{.Status}}'
""",
)
@click.option("-a", "--all", "everything", is_flag=True, help="Also containers that do not run.")
@click.option("-q", "--quiet", is_flag=True, help="Ids only.")
@click.option("-n", "--last", type=int, metavar="N", help="The N that were made last, whatever they do.")
@click.option("-l", "--latest", is_flag=True, help="The one that was made last.")
@click.option("-s", "--size", is_flag=True, help="Also the size of what each wrote.")
@click.option("--no-trunc", is_flag=True, help="Whole ids and commands.")
@click.option("-f", "--filter", "wanted", multiple=True, metavar="K=V", help=f"Only these: {', '.join(filters.KEYS)}.")
@click.option("--format", "format_", metavar="TEMPLATE", help="table, json, or a Go template; with table before it.")
def ps(
    everything: bool,
    quiet: bool,
    last: int | None,
    latest: bool,
    size: bool,
    no_trunc: bool,
    wanted: tuple[str, ...],
    format_: str | None,
) -> None:
    """List containers, the newest first; those that run, unless options ask for others."""
    root = Store().root
    seen = [(container, now) for container in catalogue.every(root) if (now := _observed(container)) is not None]
    chosen = filters.parse(wanted)
    count = 1 if latest else last if last is not None and last >= 0 else None
    if not everything and count is None and "status" not in chosen:
        seen = [(container, now) for container, now in seen if isinstance(now, state.Alive)]
    seen = [pair for pair in seen if filters.fits(chosen, *pair, root)]
    if count is not None:
        seen = seen[:count]
    if quiet:
        for container, _ in seen:
            click.echo(container.id if no_trunc else container.id[:12])
        return
    wants_size = size or (format_ is not None and ".Size" in format_)
    rows = [_row(container, now, no_trunc, wants_size) for container, now in seen]
    listing.show(format_, _TABLE + ("\t{{.Size}}" if size else ""), _HEADERS, rows)


def _observed(container: Container) -> state.Seen | None:
    try:
        return container.observe()
    except FileNotFoundError:
        return None  # removed meanwhile


def _row(container: Container, now: state.Seen, whole: bool, wants_size: bool) -> dict[str, Any]:
    moment = container.created
    made = None if container.trouble else container.config
    command = " ".join(made.argv) if made else ""
    if not whole and len(command) > _SHOWN:
        command = command[: _SHOWN - 1] + "…"
    labels = made.labels if made else {}
    return {
        "ID": container.id if whole else container.id[:12],
        "Image": made.image if made else "",
        "Command": f'"{words.escaped(command)}"',
        "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(moment)),
        "RunningFor": f"{words.duration(time.time() - moment)} ago",
        "State": state.name(now) if not isinstance(now, state.Starting) else "created",
        "Status": words.status(now, whole=whole, health=filters.health_of(container, now, "")),
        "Size": output.size(_written(container.directory)) if wants_size else "",
        "Names": container.name,
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
        "Mounts": ",".join(volume.name or volume.source or volume.target for volume in made.volumes) if made else "",
        "Networks": "host",
        "Ports": "",
        "Label": _label(labels),
    }


def _label(labels: dict[str, str]) -> Callable[[str], str]:
    return lambda key: labels.get(key, "")


def _written(directory: str) -> int:
    """Bytes of the regular files in the container's layer."""
    from launcher.container.usage import written

    return written(f"{directory}/upper")
