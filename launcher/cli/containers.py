"""`ufs ps`, `ufs rm`, `ufs diff`: containers that exist."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

import click

from launcher.container import lifecycle, state
from launcher.errors import UfsError
from launcher.image.store import Store

if TYPE_CHECKING:
    from launcher.container.lifecycle import Container
    from launcher.sandbox.protocol import Channel


@click.command("ps")
@click.option("-a", "--all", "everything", is_flag=True, help="Also containers that have ended.")
@click.option("-q", "--quiet", is_flag=True, help="Ids only.")
def ps(everything: bool, quiet: bool) -> None:
    """List containers."""
    rows = []
    for container in lifecycle.every(Store().root):
        try:
            running, status = _status(container)
        except FileNotFoundError:
            continue  # removed meanwhile
        if not (everything or running):
            continue
        made = container.config
        command = _printable(" ".join(made.argv))
        if len(command) > 24:
            command = command[:23] + "…"
        rows.append((made.id[:12], made.image, command, _ago(made.created), status, made.name))
    if quiet:
        for row in rows:
            click.echo(row[0])
        return
    _table([("CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "NAMES"), *rows])


@click.command("rm")
@click.option("-f", "--force", is_flag=True, help="Kill a running container first.")
@click.argument("containers", metavar="CONTAINER...", nargs=-1, required=True)
def rm(force: bool, containers: tuple[str, ...]) -> None:
    """Remove containers that have ended, with everything they wrote."""
    root, failed = Store().root, False
    for name in containers:
        try:
            lifecycle.remove(lifecycle.find(root, name), force=force)
        except UfsError as error:
            click.echo(f"ufs: {error}", err=True)
            failed = True
        else:
            click.echo(name)
    if failed:
        raise SystemExit(1)


@click.command("diff")
@click.argument("container", metavar="CONTAINER")
def diff(container: str) -> None:
    """Show what a container added (A), changed (C) and deleted (D) in its root file system.

    Read in a user namespace with the container's ids, to which the files of its layer belong.
    """
    from launcher.image.resolve import resolve
    from launcher.sandbox import namespaces

    store = Store()
    found = lifecycle.find(store.root, container)
    image = resolve(found.config.image_id or found.config.image, store)
    known = found.state()
    created = [] if isinstance(known, state.Created) else known.created
    upper = f"{found.directory}/upper"

    def body(_: Channel) -> int:
        from launcher.container.changes import changes, without_mount_points

        if not os.path.isdir(upper):  # it ended before its layer was made
            return 0
        with os.fdopen(os.dup(1), "wb") as output:
            for change in without_mount_points(changes(upper, image.open_tree()), created):
                output.write(
                    f"{change.kind} {_printable(os.fsdecode(change.path))}\n".encode("utf-8", "surrogateescape")
                )
        return 0

    sys.stdout.flush()
    pid, channel = namespaces.fork_mapped(found.config.ids, "reader", body)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    channel.close()
    if status != 0:
        raise UfsError(f"could not compare {container} with its image; the reason is above")


def _status(container: Container) -> tuple[bool, str]:
    """(whether it runs, the STATUS column). The lock tells, not what a launcher wrote before it was killed."""
    running = container.in_use()
    known = container.state()
    if running:
        return True, f"Up {_span(time.time() - known.at)}" if isinstance(known, state.Running) else "Created"
    since = _ago(lifecycle.ended_at(container))
    if isinstance(known, state.Exited):
        return False, f"Exited ({known.status}) {since}"
    return False, f"Killed with its launcher {since}"


def _ago(moment: float) -> str:
    return f"{_span(time.time() - moment)} ago"


def _span(seconds: float) -> str:
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        count = int(seconds // size)
        if count:
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return f"{max(0, int(seconds))} seconds"


def _printable(text: str) -> str:
    """Control characters of a name must not reach a terminal."""
    return "".join(c if c.isprintable() or 0xDC80 <= ord(c) <= 0xDCFF else f"\\x{ord(c):02x}" for c in text)


def _table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
