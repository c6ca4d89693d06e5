"""`ufs diff`: what a container changed."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from launcher.container import catalogue, state
from launcher.errors import UfsError, printable
from launcher.image.store import Store

if TYPE_CHECKING:
    from launcher.sandbox.protocol import Channel


def preload() -> None:
    """Import what comparing needs, while the id map is written."""
    from importlib import import_module

    for name in ("launcher.container.changes", "unionfs.image.tree"):
        import_module(name)


@click.command("diff")
@click.argument("container", metavar="CONTAINER")
def diff(container: str) -> None:
    """Show what a container added (A), changed (C) and deleted (D) in its root file system.

    Read in a user namespace with the container's ids, to which the files of its layer belong.
    """
    from launcher.image.resolve import resolve
    from launcher.sandbox import namespaces

    store = Store()
    found = catalogue.find(store.root, container)
    image = resolve(found.config.image_id or found.config.image, store)
    known = found.observe()
    created = [] if isinstance(known, state.Created | state.Dead) else known.created
    upper = f"{found.directory}/upper"
    mapped = image.id is not None and not found.config.ids.single

    def body(_: Channel) -> int:
        from launcher.container.changes import changes, without_mount_points

        if not os.path.isdir(upper):  # it ended before its layer was made
            return 0
        with os.fdopen(os.dup(1), "wb") as output:
            for change in without_mount_points(changes(upper, image.open_tree(), owners=mapped), created):
                output.write(
                    f"{change.kind} {printable(os.fsdecode(change.path))}\n".encode("utf-8", "surrogateescape")
                )
        return 0

    sys.stdout.flush()
    pid, channel = namespaces.fork_mapped(found.config.ids, "reader", body, meanwhile=preload)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    channel.close()
    if status != 0:
        raise UfsError(f"could not compare {container} with its image; the reason is above")
