"""`ufs attach`, `ufs exec`: into a running container."""

from __future__ import annotations

import click

from launcher.container import catalogue, control, keys
from launcher.container.catalogue import Container
from launcher.errors import UfsError
from launcher.image.store import Store


@click.command("attach")
@click.option("--detach-keys", metavar="KEYS", help="What leaves it again; by default as it was made.")
@click.option("--no-stdin", is_flag=True, help="Only show its output.")
@click.option("--sig-proxy", type=bool, default=True, help="Pass signals on to it; true by default.")
@click.argument("container", metavar="CONTAINER")
def attach(detach_keys: str | None, no_stdin: bool, sig_proxy: bool, container: str) -> None:
    """Connect standard streams to those of a running container.

    The exit status is the container's, or 0 when it was left by the detach keys.
    """
    found = catalogue.find(Store().root, container)
    raise SystemExit(_attach(found, not no_stdin, detach_keys, sig_proxy))


@click.command(
    "exec",
    context_settings={"allow_interspersed_args": False},
    epilog="""\b
Examples:
  ufs exec web ls /
  ufs exec -it web sh
  echo word | ufs exec -i web cat
""",
)
@click.option("-d", "--detach", is_flag=True, help="Leave it in the background.")
@click.option("-i", "--interactive", is_flag=True, help="Give it this standard input.")
@click.option("-t", "--tty", "terminal", is_flag=True, help="Give it a terminal of its own.")
@click.option("-e", "--env", multiple=True, metavar="K=V", help="Set a variable; K alone passes this one's on.")
@click.option("--env-file", multiple=True, metavar="FILE", help="Set variables from a file of lines K=V.")
@click.option("-w", "--workdir", metavar="DIR", help="In place of the container's.")
@click.option("-u", "--user", metavar="USER[:GROUP]", help="In place of the container's.")
@click.option("--privileged", is_flag=True, help="With every capability that can be had in the container.")
@click.option("--detach-keys", metavar="KEYS", help="What leaves its terminal; by default as the container has it.")
@click.argument("container", metavar="CONTAINER")
@click.argument("words", metavar="COMMAND [ARG]...", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(
    detach: bool,
    interactive: bool,
    terminal: bool,
    env: tuple[str, ...],
    env_file: tuple[str, ...],
    workdir: str | None,
    user: str | None,
    privileged: bool,
    detach_keys: str | None,
    container: str,
    words: tuple[str, ...],
) -> None:
    """Run a further command in a running container; the exit status is the command's."""
    import os

    from launcher.container import settings
    from launcher.supervisor import executing

    if terminal and interactive and not detach and not os.isatty(0):
        raise UfsError("the input device is not a TTY; without one leave -t out")
    found = catalogue.find(Store().root, container)
    chosen = keys.checked(detach_keys, found.config.detach_keys)
    wanted = executing.Wanted(
        list(words),
        settings.variables(env_file, env),
        settings.working_directory("", workdir) if workdir else None,
        user,
        interactive,
        terminal,
        privileged,
    )
    if detach:
        executing.run_detached(found, wanted)
        return
    raise SystemExit(executing.run(found, wanted, chosen) or 0)


def start_attached(name: str, interactive: bool, detach_keys: str | None, proxy: bool) -> int:
    """`ufs start --attach`: the exit status of the container, which may be running already."""
    from launcher.supervisor import attended, starting

    store = Store()
    container = catalogue.find(store.root, name)
    made = container.config
    chosen = keys.checked(detach_keys, made.detach_keys)
    channel = starting.start(store, container)
    if channel is None:
        return _attach(container, interactive, detach_keys, proxy)
    return attended.stay(channel, wants_input=interactive and made.interactive, keys=chosen, proxy=proxy)


def _attach(container: Container, wants_input: bool, detach_keys: str | None, proxy: bool) -> int:
    from launcher.supervisor import attended

    made = container.config
    chosen = keys.checked(detach_keys, made.detach_keys)
    channel = control.connect(container.directory)
    if channel is None:
        raise UfsError(f"container {made.name} is not running: start it first (ufs start {made.name})")
    return attended.stay(channel, wants_input=wants_input and made.interactive, keys=chosen, proxy=proxy)
