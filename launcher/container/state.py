"""What a container is doing: one type per state, the transitions between them, and what of it is true now.

state.json is what the supervisor last wrote; one that was killed wrote nothing more. Whether any of it still holds is
told by the container's lock, never by a pid: `observe`. docs/containers.md has the table.
"""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from typing import Any, NamedTuple

from launcher.container import lock
from launcher.errors import UfsError

_KILLED = 128 + 9


class Corrupt(Exception):
    """A file of a container cannot be understood; the text names it and says why."""


class Created(NamedTuple):
    """Its directory is there, it was never started. Times are seconds since 1970."""

    at: float


class Starting(NamedTuple):
    """Its processes are being made, on somebody's command. `created`: as of `Running`, from the runs before."""

    at: float
    created: list[str]
    restarts: int = 0
    delay: float = 0.0


class Running(NamedTuple):
    """Its command runs: pid of process 1 and of the file system server, as the host sees them.

    `ticks` is when process 1 began, in clock ticks since boot (proc_pid_stat(5), field 22), `boot` the boot id: so that
    a pid which another process got meanwhile is not taken for it. `created` are the names that were made in its layer
    as places to mount on. `restarts` is how often its policy has started it again, `delay` the seconds that it waited
    before the last time (0: it was started by a command).
    """

    at: float
    pid: int
    server: int
    created: list[str]
    ticks: int = 0
    boot: str = ""
    restarts: int = 0
    delay: float = 0.0


class Paused(NamedTuple):
    """As `Running`, and none of its processes gets on. `how`: "freezer" or "signals"."""

    at: float
    pid: int
    server: int
    created: list[str]
    ticks: int
    boot: str
    restarts: int
    delay: float
    how: str


class Restarting(NamedTuple):
    """It ended as `Exited` says. Its supervisor starts it the `restarts`th time again, `delay` seconds after `at`."""

    at: float
    status: int
    error: str | None
    created: list[str]
    started: float
    restarts: int
    delay: float


class Exited(NamedTuple):
    """It ended with `status` (as `ufs-run` does); `error` is why where that is not the command's own doing.

    `started` is when it had begun, 0 where it never did. `stopped`: somebody had asked for its end.
    """

    at: float
    status: int
    error: str | None
    created: list[str]
    started: float = 0.0
    restarts: int = 0
    stopped: bool = False


class Dead(NamedTuple):
    """Nothing but `ufs rm` can be done with it: what is kept of it cannot be read. Never written."""

    at: float
    reason: str


State = Created | Starting | Running | Paused | Restarting | Exited
Seen = State | Dead
Begun = Starting | Running | Paused | Restarting
Alive = Running | Paused | Restarting
"""What counts as running to who lists or removes: it goes on without anybody's doing."""

_KINDS: dict[str, Any] = {
    "created": Created,
    "starting": Starting,
    "running": Running,
    "paused": Paused,
    "restarting": Restarting,
    "exited": Exited,
}

_NUMBERS = ("at", "pid", "server", "status", "ticks", "started", "restarts", "delay")

_NEXT: dict[Any, tuple[Any, ...]] = {
    Created: (Starting,),
    Starting: (Running, Exited),
    Running: (Paused, Restarting, Exited),
    Paused: (Running, Restarting, Exited),
    Restarting: (Running, Exited),
    Exited: (Starting,),
}


def name(state: Seen) -> str:
    """The state in one word; all but "starting" are Docker's."""
    return type(state).__name__.lower()


def write(directory: str, state: State) -> None:
    """Replace state.json; a reader sees the old or the new one, whole. For the holder of the lock.

    On a full disk it is written over, which needs no room: an end must be recorded.
    """
    path, document = f"{directory}/state.json", {"state": name(state), **state._asdict()}
    try:
        publish(path, document)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not os.path.exists(path):
            raise
        _write_over(path, document)


def move(directory: str, to: State) -> None:
    """`write` where the transition is one of the table; anything else is a mistake of ours."""
    now = read(directory)
    if type(to) not in _NEXT[type(now)]:
        raise UfsError(f"a container that is {name(now)} cannot become {name(to)}", 125)
    write(directory, to)


def read(directory: str) -> State:
    """The state last written. Raises `Corrupt`; FileNotFoundError where the container is gone."""
    fields = document(f"{directory}/state.json")
    try:
        return _checked(_KINDS[fields.pop("state")](**fields))
    except (KeyError, TypeError) as error:
        raise Corrupt(f"state.json: {error}") from error


def settle(directory: str, at: float | None = None) -> Created | Exited:
    """For who holds the lock of a container without a supervisor: its state, with an end that nobody could write down
    written down. `at` is when it ended, where that is known.
    """
    known = read(directory)
    if isinstance(known, Created | Exited):
        return known
    ended = _unrecorded_end(directory, known)
    if at is not None:
        ended = ended._replace(at=at)
    write(directory, ended)
    return ended


def observe(directory: str) -> Seen:
    """What is true now: the state last written, or what became of it without a supervisor to write it down.

    Raises FileNotFoundError where the container is gone.
    """
    alive = lock.held(directory)
    try:
        known = read(directory)
    except Corrupt as error:
        return Dead(_changed(directory), str(error))
    # A free lock comes after the last word of who held it, and the state was read after the look at the lock.
    if alive or isinstance(known, Created | Exited):
        return known
    return _unrecorded_end(directory, known)


def boot_id() -> str:
    """Another one after each start of the machine; random(4)."""
    with open("/proc/sys/kernel/random/boot_id") as stream:
        return stream.read().strip()


def ticks(pid: int) -> int:
    """When a process began, in clock ticks since boot; -1 where there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:
            return int(stream.read().rpartition(b")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return -1


def document(path: str) -> dict[str, Any]:
    """A JSON object from a file of a container; `Corrupt` where it is none."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            found = json.load(stream)
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"{os.path.basename(path)} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise Corrupt(f"{os.path.basename(path)} is damaged: it is not a JSON object")
    return found


def publish(path: str, document: dict[str, object]) -> None:
    """Write JSON beside `path` and rename it into place."""
    temporary = f"{path}.{os.getpid()}"
    try:
        with open(temporary, "w") as stream:
            json.dump(document, stream, indent=1)
            stream.write("\n")
        os.rename(temporary, path)
    except OSError as error:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise OSError(error.errno, error.strerror, path) from error  # write(2) names no file


def _write_over(path: str, document: dict[str, object]) -> None:
    text = json.dumps(document).encode("utf-8", "surrogateescape")
    with open(path, "r+b", buffering=0) as file:
        # At least as long as before, so that at no moment the rest of the old text follows.
        file.write(text.ljust(os.fstat(file.fileno()).st_size))


def _unrecorded_end(directory: str, known: Begun) -> Exited:
    count = known.restarts
    if isinstance(known, Starting):
        why = "its supervisor was killed while it started"
        return Exited(known.at, _KILLED, why, known.created, restarts=count)
    if isinstance(known, Restarting):
        why = "its supervisor was killed before it could start it again"
        return Exited(known.at, known.status, why, known.created, known.started, count)
    restarted = known.boot not in ("", boot_id())
    why = "the machine was restarted" if restarted else "its supervisor was killed"
    return Exited(_changed(directory), _KILLED, why, known.created, known.at, count)


def _changed(directory: str) -> float:
    try:
        return os.stat(f"{directory}/state.json").st_mtime
    except FileNotFoundError:
        return os.stat(directory).st_mtime


def _checked(state: State) -> State:
    numbers = [value for key, value in state._asdict().items() if key in _NUMBERS]
    if not all(isinstance(value, int | float) for value in numbers):
        raise TypeError("a number is expected")
    return state
