"""What a container was made with, as containers/<id>/config.json keeps it: all that a start needs."""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

from launcher.container import state
from launcher.container.state import Corrupt
from launcher.sandbox import ports
from launcher.sandbox.idmap import IdMap, Range
from launcher.sandbox.spec import Spec, Volume

LOG_DRIVERS = ("k8s-file", "none")
DETACH_KEYS = "ctrl-p,ctrl-q"
STOP_SECONDS = 10


class Log(NamedTuple):
    """How its output is recorded (`launcher.container.logs`). Sizes in bytes."""

    driver: str = LOG_DRIVERS[0]
    max_size: int = 64 * 10**6
    max_file: int = 3


class Restart(NamedTuple):
    """When it is started again by itself (`launcher.container.restart`). `maximum`: of on-failure, 0 for no end."""

    name: str = "no"
    maximum: int = 0


class Health(NamedTuple):
    """A check of it (`launcher.container.health`): `argv` runs in the container. Times in seconds. In the first
    `start_period` it runs each `start_interval`, and failing does not count.
    """

    argv: list[str]
    test: list[str]
    """As the image or the user has it: CMD or CMD-SHELL, and what follows."""
    interval: float = 30.0
    timeout: float = 30.0
    start_period: float = 0.0
    start_interval: float = 5.0
    retries: int = 3


class Config(NamedTuple):
    """`image` is what the user named, `image_id` its config digest (None: `host`). `created`: seconds since 1970."""

    id: str
    name: str
    image: str
    image_id: str | None
    created: float
    argv: list[str]
    environment: dict[str, str]
    working_directory: str
    user: str
    hostname: str
    volumes: list[Volume]
    read_only: bool
    remove: bool
    ids: IdMap
    """The owners of the files in the container's layer are ids of this map: it is needed to read or remove them."""
    capabilities: list[int]
    engine: str = "direct"
    interactive: bool = False
    terminal: bool = False
    init: bool = False
    detached: bool = False
    """Made to be in the background: its standard input stays open when an attached client leaves."""
    detach_keys: str = DETACH_KEYS
    stop_signal: str = ""
    """As the image or --stop-signal says it; "" is SIGTERM."""
    stop_timeout: int = STOP_SECONDS
    """Seconds between the stop signal and SIGKILL."""
    log: Log = Log()
    restart: Restart = Restart()
    health: Health | None = None
    labels: dict[str, str] = {}
    entrypoint: list[str] = []
    """The first words of `argv`, as many as are of the Entrypoint."""
    new_privileges: bool = False
    """Whether set-user-id programs and capabilities of files give what they say (--security-opt)."""
    nested: bool = False
    """Whether containers can be run inside it."""
    directories: list[str] = []
    """What the image calls volumes: directories that are made where it lacks them."""
    volumes_from: list[str] = []
    """As --volumes-from was given; what came of it is in `volumes`."""


def write(directory: str, config: Config) -> None:
    """Publish config.json in `directory`."""
    state.publish(f"{directory}/config.json", config._asdict())


def read(directory: str) -> Config:
    """The config of the container in `directory`. FileNotFoundError when it is gone, `Corrupt` when it is damaged."""
    fields = state.document(f"{directory}/config.json")
    try:
        way, uids, gids = fields.pop("ids")
        ranges = [tuple(Range(*numbers) for numbers in side) for side in (uids, gids)]
        volumes = [_volume(directory, *volume) for volume in fields.pop("volumes")]
        log, restart = Log(*fields.pop("log")), Restart(*fields.pop("restart", ()))
        health = Health(*fields.pop("health")) if fields.get("health") else None
        fields.pop("health", None)
        made = Config(
            **fields, volumes=volumes, log=log, restart=restart, health=health, ids=IdMap(way, ranges[0], ranges[1])
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Corrupt(f"config.json is damaged or of another version: {error}") from error
    for key, kind in _KINDS:
        if not isinstance(getattr(made, key), kind):
            raise Corrupt(f"config.json is damaged: {key} is {json.dumps(getattr(made, key))}")
    return made


def ends(made: Config, number: int) -> bool:
    """Whether a signal that somebody sends asks for the container's end: then no policy starts it again."""
    import signal

    from launcher.sandbox import signal_names

    return number in (signal.SIGKILL, signal_names.number(made.stop_signal or "SIGTERM"))


def spec(made: Config, directory: str, streams: tuple[int, int, int], size: bytes) -> Spec:
    """The container's processes as `made` says. `streams` and `size` are as of `Spec`."""
    return Spec(
        id=made.id,
        directory=directory,
        argv=made.argv,
        environment=made.environment,
        working_directory=made.working_directory,
        user=made.user,
        hostname=made.hostname,
        volumes=made.volumes,
        directories=made.directories,
        ids=made.ids,
        capabilities=frozenset(made.capabilities),
        new_privileges=made.new_privileges,
        low_ports=made.ids.way == "direct" and ports.NET_BIND_SERVICE in made.capabilities,
        nested=made.nested,
        engine=made.engine,
        read_only=made.read_only,
        interactive=made.interactive,
        terminal=made.terminal,
        terminal_size=size,
        init=made.init,
        remove=made.remove,
        streams=streams,
    )


def _volume(directory: str, *fields: Any) -> Volume:
    """The place of a volume's content follows the store, wherever that is now."""
    volume = Volume(*fields)
    root = os.path.dirname(os.path.dirname(directory))
    source = f"{root}/volumes/{volume.name}/_data" if volume.kind == "volume" else volume.source
    return volume._replace(source=source, options=tuple(volume.options))


_KINDS: list[tuple[str, Any]] = [
    *((key, str) for key in ("id", "name", "image", "working_directory", "user", "hostname", "engine", "stop_signal")),
    *((key, list) for key in ("argv", "capabilities", "entrypoint")),
    *(
        (key, bool)
        for key in ("read_only", "remove", "interactive", "terminal", "init", "detached", "nested", "new_privileges")
    ),
    *((key, dict) for key in ("environment", "labels")),
    ("image_id", (str, type(None))),
    ("created", (int, float)),
    ("stop_timeout", int),
]
