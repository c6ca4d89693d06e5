"""`ufs start`, `stop`, `kill`, `restart`, `wait`, `pause`, `unpause`, `rename`, `rm`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import click

from launcher.container import catalogue, control, lifecycle, state
from launcher.container.catalogue import Container
from launcher.container.config import Config
from launcher.errors import UfsError, describe
from launcher.image.store import Store
from launcher.sandbox.protocol import Channel, PeerGone

_containers = click.argument("containers", metavar="CONTAINER...", nargs=-1, required=True)


@click.command("start")
@click.option("-a", "--attach", is_flag=True, help="Show its output and forward signals; the exit status is its own.")
@click.option("-i", "--interactive", is_flag=True, help="Give it this standard input (and --attach).")
@click.option("--all", "everything", is_flag=True, help="Those that --restart always and unless-stopped bring back.")
@click.option("--detach-keys", metavar="KEYS", help="What leaves it again; by default as it was made.")
@click.option("--sig-proxy", type=bool, default=True, help="Pass signals on to it; true by default.")
@click.argument("containers", metavar="CONTAINER...", nargs=-1)
def start(
    attach: bool,
    interactive: bool,
    everything: bool,
    detach_keys: str | None,
    sig_proxy: bool,
    containers: tuple[str, ...],
) -> None:
    """Start containers that were made or have ended, with the layer that they have.

    With --all, those that their restart policy brings back after a start of the machine: --restart always, and
    unless-stopped where nobody had stopped it.
    """
    if everything == bool(containers) or (everything and (attach or interactive)):
        raise click.UsageError("give either --all, which attaches to none, or CONTAINER...")
    if attach or interactive:
        from launcher.cli.execute import start_attached

        if len(containers) > 1:
            raise click.UsageError("one container can be attached to at a time")
        raise SystemExit(start_attached(containers[0], interactive, detach_keys, sig_proxy))
    store = Store()
    if everything:
        containers = tuple(container.id for container in _brought_back(store))
    _each(store, containers, lambda container: _start(store, container))


@click.command("stop")
@click.option("-t", "--time", "grace", type=int, metavar="SECONDS", help="Kill it after these; -1: never.")
@click.option("-s", "--signal", "signal_", metavar="SIGNAL", help="In place of its stop signal.")
@click.option("-a", "--all", "everything", is_flag=True, help="All, for now: start --all brings back what wants it.")
@click.argument("containers", metavar="CONTAINER...", nargs=-1)
def stop(grace: int | None, signal_: str | None, everything: bool, containers: tuple[str, ...]) -> None:
    """Ask containers to end with their stop signal, and kill those that have not after some seconds."""
    if everything == bool(containers):
        raise click.UsageError("give either --all or CONTAINER...")
    store = Store()
    if everything:
        containers = tuple(container.id for container in _going_on(store))
    asked: dict[str, Channel | None] = {}

    def ask(container: Container) -> None:
        asked[container.id] = _ask_to_stop(container, grace, signal_, for_now=everything)

    def wait_for(container: Container) -> None:
        channel = asked.get(container.id)
        if channel is not None:
            _outcome(channel)

    # All are asked first, so that they end at the same time.
    _each(store, containers, ask, wait_for)


@click.command("restart")
@click.option("-t", "--time", "grace", type=int, metavar="SECONDS", help="Kill it after these; -1: never.")
@_containers
def restart(grace: int | None, containers: tuple[str, ...]) -> None:
    """Stop containers and start them again; those that do not run are started."""
    store = Store()

    def again(container: Container) -> None:
        channel = _ask_to_stop(container, grace, None)
        if channel is not None:
            _outcome(channel)
        _start(store, container)

    _each(store, containers, again)


@click.command("kill")
@click.option("-s", "--signal", "signal_", metavar="SIGNAL", default="KILL", help="By default KILL.")
@_containers
def kill(signal_: str, containers: tuple[str, ...]) -> None:
    """Send a signal to the first process of running containers."""
    from launcher.sandbox import signal_names

    number = signal_names.number(signal_)
    _each(Store(), containers, lambda container: _need(container, "signal", "done", number=number))


@click.command("pause")
@_containers
def pause(containers: tuple[str, ...]) -> None:
    """Keep all processes of containers from going on.

    By the freezer of cgroups where one is delegated to this user, else every process gets SIGSTOP, which it can see.
    """
    _each(Store(), containers, lambda container: _need(container, "pause", "done"))


@click.command("unpause")
@_containers
def unpause(containers: tuple[str, ...]) -> None:
    """Let paused containers go on."""
    _each(Store(), containers, lambda container: _need(container, "unpause", "done"))


@click.command("wait")
@_containers
def wait(containers: tuple[str, ...]) -> None:
    """Wait until containers have ended, and print their exit statuses."""
    _each(Store(), containers, lambda container: click.echo(_wait(container)), quiet=True)


@click.command("rename")
@click.argument("container", metavar="CONTAINER")
@click.argument("name", metavar="NAME")
def rename(container: str, name: str) -> None:
    """Give a container another name."""
    root = Store().root
    lifecycle.rename(root, catalogue.find(root, container), name)


@click.command("update")
@click.option("--restart", "policy", metavar="POLICY", help="no, on-failure[:N], always, unless-stopped.")
@_containers
def update(policy: str | None, containers: tuple[str, ...]) -> None:
    """Change the restart policy of containers; of those that run it counts from their next end on."""
    from launcher.container import restart

    if policy is None:
        raise click.UsageError("say what to change: --restart POLICY")
    wanted, root = restart.parse(policy), Store().root

    def change(made: Config) -> Config:
        return made._replace(restart=restart.check(wanted, remove=made.remove))

    _each(Store(), containers, lambda container: lifecycle.alter(root, container, change))


@click.command("rm")
@click.option("-f", "--force", is_flag=True, help="Kill a running container first; one that is not there is no error.")
@click.option("-v", "--volumes", is_flag=True, help="Also its anonymous volumes.")
@_containers
def rm(force: bool, volumes: bool, containers: tuple[str, ...]) -> None:
    """Remove containers that have ended or never began, with everything they wrote."""
    _each(Store(), containers, lambda container: _remove(container, force, volumes), missing_is_fine=force)


def _each(
    store: Store,
    names: tuple[str, ...],
    *actions: Callable[[Container], object],
    quiet: bool = False,
    missing_is_fine: bool = False,
) -> None:
    """Do each action with all containers in turn; print the names of those that it worked for, as they were given.

    What goes wrong with one is a line on standard error and status 1, and no reason to leave the others alone.
    """
    good: dict[str, Container] = {}
    failed = False
    for name in names:
        try:
            good[name] = catalogue.find(store.root, name)
        except UfsError as error:
            click.echo(f"ufs: {error}", err=True)
            failed = failed or not missing_is_fine
    for number, action in enumerate(actions, 1):
        for name, container in list(good.items()):
            try:
                action(container)
            except (UfsError, OSError) as error:
                why = describe(error) if isinstance(error, OSError) else str(error)
                click.echo(f"ufs: {why}", err=True)
                failed = True
                del good[name]
            else:
                if number == len(actions) and not quiet:
                    click.echo(name)
    if failed:
        raise SystemExit(1)


def _brought_back(store: Store) -> Iterator[Container]:
    from launcher.container import restart

    for container in catalogue.every(store.root):
        with suppress(FileNotFoundError):  # removed meanwhile
            seen = container.observe()
            if not container.trouble and restart.brought_back(container.config.restart, seen):
                yield container


def _going_on(store: Store) -> Iterator[Container]:
    for container in catalogue.every(store.root):
        with suppress(FileNotFoundError):  # removed meanwhile
            if not container.trouble and isinstance(container.observe(), state.Alive):
                yield container


def _start(store: Store, container: Container) -> None:
    from launcher.supervisor import background, starting

    channel = starting.start(store, container)
    if channel is not None:
        background.wait_until_started(channel)


def _ask_to_stop(
    container: Container, grace: int | None, signal_: str | None, *, for_now: bool = False
) -> Channel | None:
    """Send the stop signal: the channel on which its end is told; None where it does not run."""
    from launcher.sandbox import signal_names

    made = container.config
    number = signal_names.number(signal_ or made.stop_signal or "TERM")
    seconds = made.stop_timeout if grace is None else grace
    channel = control.connect(container.directory)
    if channel is None:
        return None
    try:
        channel.send("stop", number=number, grace=None if seconds < 0 else seconds, for_now=for_now)
    except PeerGone:
        return None
    return channel


def _outcome(channel: Channel) -> int | None:
    """Wait for the container's end: its exit status; None where its supervisor was killed."""
    try:
        return int(channel.expect("exited").fields["status"])
    except PeerGone:
        return None
    finally:
        channel.close()


def _need(container: Container, kind: str, answer: str, **fields: int) -> None:
    """Ask for what only a running container can do."""
    if control.ask(container.directory, kind, answer, (), **fields) is None:
        seen = container.observe()
        raise UfsError(f"container {container.name} is not running: it is {state.name(seen)}")


def _wait(container: Container) -> int:
    channel = control.connect(container.directory)
    if channel is not None:
        try:
            channel.send("wait")
        except PeerGone:
            channel.close()
        else:
            status = _outcome(channel)
            if status is not None:
                return status
    try:
        seen = container.observe()
    except FileNotFoundError as error:
        raise UfsError(f"container {container.name} was removed meanwhile") from error
    return seen.status if isinstance(seen, state.Exited) else 0


def _remove(container: Container, force: bool, volumes: bool) -> None:
    held = lifecycle.kill_and_hold(container) if force else lifecycle.hold(container)
    if held is None:
        name = container.name
        seen = container.observe()
        doing = state.name(seen) if isinstance(seen, state.Paused | state.Restarting) else "running"
        raise UfsError(f"container {name} is {doing}: stop it first (ufs stop {name}), or use --force")
    lifecycle.remove(container, held, volumes=volumes)
