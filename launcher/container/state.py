"""What a container is doing: one type per state. Created -> Running -> Exited, or Created -> Exited.

What the file says is what the launcher last wrote; a launcher that was killed wrote nothing more. Whether a
container is really in use is told by the lock on its directory (`lifecycle`), never by a pid.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import NamedTuple


class Created(NamedTuple):
    """Its directory is there, its processes are being made. Times are seconds since 1970."""

    at: float


class Running(NamedTuple):
    """Its command runs: pid of process 1 and of the file system server, as the host sees them.

    `created` are the names that were made in its layer as places to mount on.
    """

    at: float
    pid: int
    server: int
    created: list[str]


class Exited(NamedTuple):
    """It ended with `status` (as `ufs-run` does); `error` is the line the user saw where the launcher failed."""

    at: float
    status: int
    error: str | None
    created: list[str]


State = Created | Running | Exited

_KINDS: dict[str, type[Created] | type[Running] | type[Exited]] = {
    "created": Created,
    "running": Running,
    "exited": Exited,
}


def write(directory: str, state: State) -> None:
    """Replace state.json; a reader sees the old or the new one, whole."""
    kind = next(name for name, type_ in _KINDS.items() if isinstance(state, type_))
    publish(f"{directory}/state.json", {"state": kind, **state._asdict()})


def read(directory: str) -> State:
    """The state last written."""
    with open(f"{directory}/state.json") as stream:
        fields = json.load(stream)
    return _KINDS[fields.pop("state")](**fields)


def publish(path: str, document: dict[str, object]) -> None:
    """Write JSON beside `path` and rename it into place."""
    temporary = f"{path}.{os.getpid()}"
    try:
        with open(temporary, "w") as stream:
            json.dump(document, stream, indent=1)
            stream.write("\n")
        os.rename(temporary, path)
    except OSError:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
