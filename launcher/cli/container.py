"""`ufs container`: the commands on containers by their long names, and `prune`."""

from __future__ import annotations

import click

from launcher.cli import filters, output
from launcher.cli.main import LazyGroup
from launcher.container import catalogue, lifecycle
from launcher.errors import UfsError
from launcher.image.store import Store

_SAME = (
    *("attach", "commit", "cp", "create", "diff", "exec", "export", "inspect", "kill", "logs", "pause", "port", "ps"),
    *("rename", "restart", "rm", "run", "start", "stats", "stop", "top", "unpause", "update", "wait"),
)


@click.command("prune")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("--filter", "wanted", multiple=True, metavar="K=V", help="Only these: until, label.")
def prune(force: bool, wanted: tuple[str, ...]) -> None:
    """Remove all containers that do not run."""
    chosen = filters.parse(wanted, ("until", "label"))
    if not force:
        click.echo("This removes all stopped containers.")
        click.confirm("Are you sure you want to continue?", abort=True)
    root, freed, removed = Store().root, 0, []
    for container in catalogue.every(root):
        try:
            if not filters.fits(chosen, container, container.observe(), root):
                continue
            held = lifecycle.hold(container)
            if held is None:
                continue  # it runs, or another command is at it
            from launcher.container.usage import written

            freed += written(f"{container.directory}/upper")
            lifecycle.remove(container, held)
        except (FileNotFoundError, UfsError) as error:
            if not isinstance(error, FileNotFoundError):  # removed meanwhile
                output.warn(str(error))
            continue
        removed.append(container.id)
    if removed:
        click.echo("Deleted Containers:\n" + "\n".join(removed) + "\n")
    click.echo(f"Total reclaimed space: {output.size(freed)}")


class _Containers(LazyGroup):
    """The same commands as those of `ufs`."""

    def commands_here(self) -> dict[str, str]:
        """Their places."""
        from launcher.cli.main import COMMANDS

        found = {name: COMMANDS[name] for name in _SAME if name in COMMANDS}
        return {**found, "ls": COMMANDS["ps"], "prune": "launcher.cli.container:prune"}


@click.command("container", cls=_Containers)
def container() -> None:
    """Commands on containers."""
