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
