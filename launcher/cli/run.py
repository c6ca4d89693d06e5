"""`ufs-run`, also `ufs run`: run a command in an image.

On the way of every start: what is imported here at the top costs every user time.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from launcher.cli import options
from launcher.errors import UfsError

if TYPE_CHECKING:
    from launcher.container.config import Config
    from launcher.container.lifecycle import Container
    from launcher.image.resolve import Image
    from launcher.sandbox.idmap import IdMap
    from launcher.sandbox.spec import Spec


def main() -> None:
    """The entry point of `ufs-run`."""
    gc.disable()  # what a start makes is not garbage; `launch` and `serve` turn it on for what may run for long
    # Python would turn an early Ctrl-C into a traceback; later the container decides.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        parsed = options.parse(sys.argv[1:])
        if parsed is not None:
            status = run(parsed)
            # Python's own end takes milliseconds to free what the kernel takes back at once. `run` leaves no thread and
            # no exit handler, prints nothing to standard output and every line of standard error at once.
            os._exit(status)
        status = _explain()
    except UfsError as error:
        _complain(str(error))
        status = error.status if error.status != 1 else 125
    except OSError as error:
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        _complain(f"{where}{error.strerror or error}")
        status = 125
    sys.exit(status)


def _complain(line: str) -> None:
    with suppress(OSError):  # nobody can hear it, but the status is still to be seen
        os.write(2, f"ufs: {line}\n".encode(errors="surrogateescape"))


def run(parsed: options.Parsed) -> int:
    """Run a container to its end; the exit status. Raises `UfsError` where the launcher failed."""
    # All before the container exists: a kill between its creation and the first fork leaves it to be swept.
    from launcher.container import etc, lifecycle, settings, state
    from launcher.image.resolve import resolve
    from launcher.image.store import Store
    from launcher.sandbox import capabilities, idmap, launch
    from launcher.sandbox.monitor import warn

    values = parsed.values
    if values["interactive"] and values["terminal"] and not os.isatty(0):
        raise UfsError("the input device is not a TTY; without one leave -t out", 125)
    store = Store()
    image = resolve(parsed.image, store)
    settings.check_platform(values["platform"], image.config.platform, parsed.image)
    ids, notice = idmap.choose()
    if notice:
        warn(notice)
    wanted = _config(parsed, image, ids)
    kept = capabilities.chosen(tuple(values["cap_add"]), tuple(values["cap_drop"]))
    container, lock = lifecycle.create(store.root, wanted)
    etc.write(container.directory, container.config.hostname)
    spec = _spec(values, container, kept)

    def prepared(pid: int, server: int, created: list[str]) -> None:
        state.write(container.directory, state.Running(lifecycle.now(), pid, server, created))

    status, failure = 125, None
    try:
        status = launch.run(spec, image, lock, prepared)
    except UfsError as error:
        status, failure = (error.status if error.status != 1 else 125), error
    _finish(container, status, failure)
    os.close(lock)
    if failure is not None:
        raise failure
    return status


def _config(parsed: options.Parsed, image: Image, ids: IdMap) -> Config:
    from launcher.container import config, lifecycle, names, settings

    values, defaults = parsed.values, image.config
    identity = names.new_id()
    hostname = settings.hostname(values["hostname"], identity)
    return config.Config(
        id=identity,
        name=names.checked(values["name"]) if values["name"] else "",
        image=image.name,
        image_id=image.id,
        created=lifecycle.now(),
        argv=settings.argv(defaults, values["entrypoint"], parsed.words, image.name),
        environment=settings.environment(
            defaults, values["env_file"], values["env"], hostname=hostname, terminal=values["terminal"]
        ),
        working_directory=settings.working_directory(defaults.working_dir, values["workdir"]),
        user=values["user"] if values["user"] is not None else defaults.user,
        hostname=hostname,
        volumes=[settings.volume(text) for text in values["volume"]],
        read_only=values["read_only"],
        remove=values["remove"],
        ids=ids,
    )


def _spec(values: dict[str, Any], container: Container, kept: frozenset[int]) -> Spec:
    from launcher.sandbox import terminal
    from launcher.sandbox.spec import Spec

    made = container.config
    return Spec(
        id=made.id,
        directory=container.directory,
        argv=made.argv,
        environment=made.environment,
        working_directory=made.working_directory,
        user=made.user,
        hostname=made.hostname,
        volumes=made.volumes,
        ids=made.ids,
        capabilities=kept,
        engine=values["engine"] or "direct",
        read_only=made.read_only,
        interactive=values["interactive"],
        terminal=values["terminal"],
        terminal_size=(terminal.window_size(0) or terminal.window_size(1)) if values["terminal"] else b"",
        init=values["init"],
        remove=made.remove,
    )


def _finish(container: Container, status: int, failure: UfsError | None) -> None:
    """Record the end. What is to go the server has removed, unless it was killed."""
    from launcher.container import lifecycle, state

    made = container.config
    left = container.directory if made.remove else f"{container.directory}/work"
    if os.path.lexists(left):
        lifecycle.remove_as_owner(left, made.ids)
    if made.remove:
        return
    known = state.read(container.directory)
    created = known.created if isinstance(known, state.Running) else []
    error = str(failure) if failure is not None else None
    state.write(container.directory, state.Exited(lifecycle.now(), status, error, created))


def _explain() -> int:
    """Print the help; click lays it out."""
    import click

    from unionfs.commandline import end_unread

    context = click.Context(options.command("ufs-run", run), info_name="ufs-run")
    try:
        click.echo(context.get_help())
    except BrokenPipeError:
        return end_unread()
    return 0


def __getattr__(name: str) -> Any:
    # `ufs run` asks for `command`, and only it should pay for click.
    if name == "command":
        return options.command("run", _run_within_ufs)
    raise AttributeError(name)


def _run_within_ufs(parsed: options.Parsed) -> int:
    try:
        return run(parsed)
    except UfsError as error:
        raise UfsError(str(error), error.status if error.status != 1 else 125) from error
