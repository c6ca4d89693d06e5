"""What a container was made with, as containers/<id>/config.json keeps it."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from launcher.container import state
from launcher.sandbox.idmap import IdMap, Range
from launcher.sandbox.spec import Volume


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


def write(directory: str, config: Config) -> None:
    """Publish config.json in `directory`."""
    state.publish(f"{directory}/config.json", config._asdict())


def read(directory: str) -> Config:
    """The config of the container in `directory`; `FileNotFoundError` when it is gone."""
    with open(f"{directory}/config.json") as stream:
        fields: dict[str, Any] = json.load(stream)
    way, uids, gids = fields.pop("ids")
    ranges = [tuple(Range(*numbers) for numbers in side) for side in (uids, gids)]
    volumes = [Volume(*volume) for volume in fields.pop("volumes")]
    return Config(**fields, volumes=volumes, ids=IdMap(way, ranges[0], ranges[1]))
