"""`ufs-run`, also `ufs run`: run a command in an image.

On the way of every start: what is imported here at the top costs every user time.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from launcher.cli import options
from launcher.errors import UfsError, complain, describe
from unionfs import inherited

if TYPE_CHECKING:
    from collections.abc import Callable

    from launcher.container.catalogue import Container
    from launcher.container.config import Config, Health, Restart
    from launcher.container.state import State
    from launcher.image.oci import ImageConfig
    from launcher.image.resolve import Image
    from launcher.image.store import Store
    from launcher.sandbox.idmap import IdMap
    from launcher.sandbox.spec import Volume


def main() -> None:
    """The entry point of `ufs-run`."""
    gc.disable()  # what a start makes is not garbage; `launch` and `serve` turn it on for what may run for long
    inherited.put_right()
    try:
        parsed = options.parse(sys.argv[1:])
        if parsed is not None:
            status = run(parsed)
            # Python's own end takes milliseconds to free what the kernel takes back at once. `run` leaves no thread and
            # no exit handler, prints nothing to standard output and every line of standard error at once.
            if status < 0:
                inherited.die_of(-status)
            os._exit(status)
        status = _explain()
    except Exception as error:  # noqa: BLE001 whatever it is, the user gets a line and a status of the launcher
        complain(describe(error))
        status = error.status if isinstance(error, UfsError) and error.status != 1 else 125
    sys.exit(status)


def run(parsed: options.Parsed) -> int:
    """Run a container to its end, or to its start with -d: the exit status. `UfsError` where the launcher failed.

    It is -N where this process is to die of signal N as well.
    """
    # Python would turn an early Ctrl-C into a traceback; later the container decides.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # All before the container exists: a kill between its creation and the first fork leaves it to be swept.
    from launcher.container import state
    from launcher.supervisor import run as running

    values = parsed.values
    if values["interactive"] and values["terminal"] and not values["detach"] and not os.isatty(0):
        raise UfsError("the input device is not a TTY; without one leave -t out", 125)
    image, container, lock = create(parsed, state.Starting(time.time(), []))
    if values["detach"]:
        return _in_background(container, image, lock)
    # What may be left, or may go on after its first end, cannot be supervised by this command.
    lasting = container.config.restart.name != "no"
    if lasting or (values["interactive"] and values["terminal"]):
        from launcher.supervisor import attended

        return attended.start(container, image, lock, wants_input=values["interactive"], proxy=True)
    return running.run(container, image, lock, local=True)


def create(parsed: options.Parsed, initial: State) -> tuple[Image, Container, int]:
    """A new container as the command line wants it, with its image and its lock."""
    from launcher.cli import wanted as wanting
    from launcher.container import etc, lifecycle, settings
    from launcher.image.store import Store
    from launcher.sandbox import idmap

    values = parsed.values
    store = Store()
    image = wanting.image(parsed.image, store, values["pull"] or wanting.MISSING, values["platform"])
    settings.check_platform(values["platform"], image.config.platform, parsed.image)
    ids, notice = idmap.choose()
    if notice:
        complain(notice)
    wanted = _config(parsed, image, ids, store.root)
    cidfile = _cidfile(values["cidfile"]) if values["cidfile"] else -1
    with _volumes_of(wanted, store):
        container, lock = lifecycle.create(
            store.root, wanted, initial, lambda directory: etc.write(directory, wanted.hostname)
        )
    if cidfile >= 0:
        os.write(cidfile, container.id.encode())
        os.close(cidfile)
    return image, container, lock


def _mounts(parsed: options.Parsed, places: list[str], root: str) -> list[Volume]:
    """`places` are those of the image's volumes. Most containers have none of any kind."""
    values = parsed.values
    if not (places or values["volume"] or values["mount"] or values["tmpfs"] or values["volumes_from"]):
        return []
    from launcher.container import mounts

    return mounts.given(values, places, root)


def _volumes_of(wanted: Config, store: Store) -> AbstractContextManager[None]:
    """Until this is left, the volumes of a container that is being made are there to stay."""
    if not any(volume.kind == "volume" for volume in wanted.volumes):
        return nullcontext()
    from launcher.container import volumes

    return volumes.ready(store.root, wanted.volumes, wanted.ids)


def _in_background(container: Container, image: Image, lock: int) -> int:
    from launcher.supervisor import background

    background.wait_until_started(background.start(container, image, lock))
    os.write(1, f"{container.id}\n".encode())
    return 0


def _cidfile(path: str) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError as error:
        raise UfsError(f"--cidfile {path}: the file is there already; remove it or name another", 125) from error
    except OSError as error:
        raise UfsError(f"--cidfile {path}: {error.strerror}", 125) from error


def _config(parsed: options.Parsed, image: Image, ids: IdMap, root: str) -> Config:
    from launcher.container import config, lifecycle, names, settings
    from launcher.sandbox import capabilities

    values, defaults = parsed.values, image.config
    identity, places = names.new_id(), settings.directories(defaults.volumes)
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
        volumes=_mounts(parsed, places, root),
        read_only=values["read_only"],
        remove=values["remove"],
        ids=ids,
        capabilities=sorted(capabilities.chosen(tuple(values["cap_add"]), tuple(values["cap_drop"]))),
        new_privileges=settings.new_privileges(values["security_opt"]),
        nested=values["nested"],
        engine=values["engine"] or "direct",
        interactive=values["interactive"],
        terminal=values["terminal"],
        init=values["init"],
        detached=values["detach"],
        detach_keys=settings.detach_keys(values["detach_keys"]),
        stop_signal=settings.stop_signal(values["stop_signal"], defaults.stop_signal),
        stop_timeout=settings.seconds("--stop-timeout", values["stop_timeout"], config.STOP_SECONDS),
        log=settings.log(values["log_driver"], values["log_opt"]),
        restart=_restart(values),
        health=_health(values, defaults),
        labels=settings.labels(defaults.labels, values["label"]),
        entrypoint=settings.entrypoint(defaults, values["entrypoint"]),
        directories=places,
        volumes_from=values["volumes_from"],
    )


def _restart(values: dict[str, Any]) -> Restart:
    from launcher.container.config import Restart

    if values["restart"] is None:
        return Restart()
    from launcher.container import restart

    return restart.check(restart.parse(values["restart"]), remove=values["remove"])


def _health(values: dict[str, Any], image: ImageConfig) -> Health | None:
    given = any(
        values[key] not in (None, False) for key in values if key.startswith("health_") or key == "no_healthcheck"
    )
    if not given and not image.healthcheck:
        return None
    from launcher.container import health

    return health.wanted(image.healthcheck, image.shell, values)


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
        return options.command("run", _within_ufs(run))
    if name == "create_command":
        return options.command("create", _within_ufs(_create))
    raise AttributeError(name)


def _create(parsed: options.Parsed) -> int:
    from launcher.container import lock, state

    _, container, held = create(parsed, state.Created(time.time()))
    lock.release(held)
    os.write(1, f"{container.id}\n".encode())
    return 0


def _within_ufs(action: Callable[[options.Parsed], int]) -> Callable[[options.Parsed], int]:
    """The same with the status that `ufs-run` ends with where the launcher failed."""

    def act(parsed: options.Parsed) -> int:
        try:
            return action(parsed)
        except UfsError as error:
            raise UfsError(str(error), error.status if error.status != 1 else 125) from error
        except OSError as error:
            raise UfsError(describe(error), 125) from error

    return act
