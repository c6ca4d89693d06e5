"""`ufs stats`: what containers use, now and again."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from launcher.cli import listing, output
from launcher.container import catalogue, measures, state
from launcher.container.catalogue import Container
from launcher.container.measures import Sample
from launcher.image.store import Store

_HEADERS = {
    "Container": "CONTAINER",
    "ID": "CONTAINER ID",
    "Name": "NAME",
    "CPUPerc": "CPU %",
    "MemUsage": "MEM USAGE / LIMIT",
    "MemPerc": "MEM %",
    "NetIO": "NET I/O",
    "BlockIO": "BLOCK I/O",
    "PIDs": "PIDS",
}
_TABLE = "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}"
_UNKNOWN = "--"
_AGAIN = "\x1b[2J\x1b[H"
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")

Samples = dict[str, Sample]


@click.command("stats")
@click.option("-a", "--all", "everything", is_flag=True, help="Also containers that do not run.")
@click.option("--no-stream", is_flag=True, help="Once, and not again and again.")
@click.option("--no-trunc", is_flag=True, help="Whole ids.")
@click.option("-i", "--interval", type=click.FloatRange(0.01), default=1.0, help="Seconds from one to the next; 1.")
@click.option("--format", "format_", metavar="TEMPLATE", help="table, json, or a Go template; with table before it.")
@click.argument("containers", metavar="[CONTAINER]...", nargs=-1)
def stats(
    everything: bool,
    no_stream: bool,
    no_trunc: bool,
    interval: float,
    format_: str | None,
    containers: tuple[str, ...],
) -> None:
    """Show what containers use: all that run, unless some are named. Ctrl-C ends it.

    CPU % is that of one processor since the last look. Memory is the processes' own, and their part of what they share.
    The network is the host's, and nothing counts a container's part of it.
    """
    root = Store().root
    clear = _AGAIN if sys.stdout.isatty() and not no_stream else ""
    try:
        before = _samples(_chosen(root, containers))
        while True:
            time.sleep(interval)
            chosen = _chosen(root, containers)
            now = _samples(chosen)
            shown = [one for one in chosen if everything or containers or one.id in now]
            rows = [_row(one, now.get(one.id), before.get(one.id), no_trunc) for one in shown]
            click.echo(clear, nl=False)
            listing.show(format_, _TABLE, _HEADERS, rows)
            if no_stream:
                return
            before = now
    except KeyboardInterrupt:
        return


def _chosen(root: str, names: tuple[str, ...]) -> list[Container]:
    return [catalogue.find(root, name) for name in names] if names else catalogue.every(root)


def _samples(containers: list[Container]) -> Samples:
    """Of those that run, by id."""
    everything, found = measures.processes(), {}
    for container in containers:
        try:
            seen = container.observe()
        except FileNotFoundError:
            continue  # removed meanwhile
        if isinstance(seen, state.Running | state.Paused):
            now = measures.sample(seen.pid, seen.server, everything)
            if now is not None:
                found[container.id] = now
    return found


def _row(container: Container, now: Sample | None, before: Sample | None, whole: bool) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(_HEADERS, _UNKNOWN)
    shown = container.id if whole else container.id[:12]
    row |= {"Container": shown, "ID": shown, "Name": container.name, "NetIO": f"{_UNKNOWN} / {_UNKNOWN}"}
    if now is None:
        return row | {"MemUsage": f"{_UNKNOWN} / {_UNKNOWN}", "BlockIO": f"{_UNKNOWN} / {_UNKNOWN}"}
    if before is not None and now.at > before.at:
        row["CPUPerc"] = f"{max(now.cpu - before.cpu, 0) / (now.at - before.at) * 100:.2f}%"
    if now.memory is not None:
        row["MemPerc"] = f"{now.memory / now.limit * 100:.2f}%"
    return row | {
        "MemUsage": f"{_UNKNOWN if now.memory is None else _binary(now.memory)} / {_binary(now.limit)}",
        "BlockIO": f"{_decimal(now.read)} / {_decimal(now.written)}",
        "PIDs": str(now.threads),
    }


def _decimal(count: int | None) -> str:
    return _UNKNOWN if count is None else output.size(count)


def _binary(count: float) -> str:
    """Bytes with four digits, as Docker's units.BytesSize."""
    power = 0
    while count >= 1024 and power < len(_UNITS) - 1:
        count, power = count / 1024, power + 1
    return f"{count:.4g}{_UNITS[power]}"
