"""Named and anonymous volumes: directories of the store that outlive containers, and that several may show at once.

    volumes/<name>/config.json   what it is: `Made`
                   _data/        its content
                   fresh         there until it has been filled from an image (`launcher.sandbox.filling`)

One lock, flock(2) on volumes/ itself, is held from a look at who uses a volume to its publication or removal, and from
the making of a container's volumes to the publication of the container: so none is removed that somebody is about to
use. Who takes the lock of containers/ as well (`lifecycle`) takes it afterwards. Looking needs no lock.

A volume is published complete, and is renamed out of sight before it is removed. An anonymous one is `temporary`, from
its beginning, unless its container is removed without it: so one whose container was killed away is found and swept.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from launcher.container import catalogue, state
from launcher.container.catalogue import Container
from launcher.container.config import Config
from launcher.container.removal import remove_tree
from launcher.container.usage import written
from launcher.errors import UfsError
from launcher.sandbox.idmap import IdMap, Range
from launcher.sandbox.spec import Volume

if TYPE_CHECKING:
    from launcher.image.usage import Usage

_FAILED = 125
_ALLOWED = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_LONGEST = 255  # bytes of a name of a directory


class Made(NamedTuple):
    """config.json of a volume. `created`: seconds since 1970. `ids`: whose ids the owners of its files are."""

    name: str
    created: float
    labels: dict[str, str]
    ids: IdMap
    anonymous: bool = False
    temporary: bool = False
    """Goes with the last container that uses it."""


class Known(NamedTuple):
    """A volume that is there. `trouble` says why its config.json cannot be read; `made` is None then."""

    name: str
    directory: str
    made: Made | None
    trouble: str = ""

    @property
    def data(self) -> str:
        """The directory with its content."""
        return f"{self.directory}/_data"

    @property
    def created(self) -> float:
        """Seconds since 1970; of a damaged one when its directory last changed."""
        return self.made.created if self.made else os.stat(self.directory).st_mtime

    @property
    def labels(self) -> dict[str, str]:
        """Its labels; none of a damaged one."""
        return self.made.labels if self.made else {}


def checked(name: str, status: int = _FAILED) -> str:
    """`name` if a volume may be called that."""
    if not name or len(name) > _LONGEST or not set(name) <= _ALLOWED or name[0] in "_.-":
        raise UfsError(
            f"volume name {name!r}: a name has up to {_LONGEST} letters, digits, '_', '.' or '-' and begins with a "
            "letter or digit; a directory of the host is written with its path, as /data or ./data",
            status,
        )
    return name


def new_name() -> str:
    """For one without a name: 64 hexadecimal digits."""
    return os.urandom(32).hex()


def place(root: str, name: str) -> str:
    """The directory of a volume."""
    return f"{root}/volumes/{name}"


def every(root: str) -> list[Known]:
    """All volumes, by name; without those that only wait for being swept."""
    try:
        names = sorted(name for name in os.listdir(f"{root}/volumes") if not name.startswith("."))
    except FileNotFoundError:
        return []
    found = [known for name in names if (known := _known(root, name)) is not None]
    if not any(known.made and known.made.temporary for known in found):
        return found
    used = users(catalogue.every(root))
    return [known for known in found if not (known.made and known.made.temporary) or known.name in used]


def find(root: str, name: str) -> Known:
    """The volume of this name. UfsError where there is none."""
    known = _known(root, name) if name and name[0] != "." and "/" not in name else None
    if known is None:
        raise UfsError(f"no volume {name!r}; `ufs volume ls` lists them")
    return known


def users(containers: Iterable[Container]) -> dict[str, list[str]]:
    """By volume the names of the containers that have it."""
    found: dict[str, list[str]] = {}
    for container in containers:
        for name in of(container):
            found.setdefault(name, []).append(container.name)
    return found


def of(container: Container) -> list[str]:
    """The names of a container's volumes. What a damaged one had is not known."""
    if container.trouble:
        return []
    return [mount.name for mount in container.config.volumes if mount.kind == "volume"]


def anonymous(made: Config) -> list[str]:
    """The names of those volumes of a container that were made for it alone."""
    return [mount.name for mount in made.volumes if mount.anonymous]


def usage(root: str) -> Usage:
    """What they take; of it those that no container has."""
    from launcher.image.usage import Usage

    known, used = every(root), users(catalogue.every(root))
    sizes = {one.name: written(one.data) for one in known}
    active = [name for name in sizes if name in used]
    total = sum(sizes.values())
    return Usage("Local volumes", len(known), len(active), total, total - sum(sizes[name] for name in active))


def create(root: str, made: Made) -> bool:
    """Make a volume, unless there is one of that name: whether it was made."""
    with _alone(root):
        return _make(root, made)


@contextmanager
def ready(root: str, mounts: list[Volume], ids: IdMap) -> Iterator[None]:
    """Until this is left, all volumes of `mounts` are there, and nobody removes any; those that were missing are made.

    For the publication of a container. Where that fails, what was made for it goes again.
    """
    sweep(root)
    new = []
    with _alone(root):
        try:
            for mount in mounts:
                if mount.kind == "volume":
                    made = Made(mount.name, time.time(), {}, ids, mount.anonymous, temporary=mount.anonymous)
                    if _make(root, made):
                        new.append(mount.name)
            yield
        except BaseException:
            for name in new:
                remove_tree(place(root, name))  # empty, and of this user alone
            raise


def remove(root: str, name: str) -> int:
    """Remove a volume that no container has: the bytes that it took."""
    with _alone(root):
        known = find(root, name)
        using = users(catalogue.every(root)).get(name)
        if using:
            raise UfsError(f"volume {name} is in use by container {', '.join(using)}: remove that first (ufs rm)")
        hidden = _hide(known)
    return _remove(hidden)


def remove_unused(root: str, names: Iterable[str], *, temporary: bool = False) -> Iterator[tuple[str, int]]:
    """Remove those of `names` that no container has: each with the bytes that it took. `temporary`: these alone."""
    for name in names:
        try:
            with _alone(root):
                known = find(root, name)
                if temporary and not (known.made and known.made.temporary):
                    continue
                if name in users(catalogue.every(root)):
                    continue
                hidden = _hide(known)
        except UfsError:
            continue  # somebody was quicker
        yield name, _remove(hidden)


def release(root: str, names: list[str], *, keep: bool) -> None:
    """Before a container is removed: whether the anonymous volumes of it, `names`, stay behind."""
    with _alone(root):
        for name in names:
            known = _known(root, name)
            if known is not None and known.made is not None and known.made.temporary == keep:
                _write(known.directory, known.made._replace(temporary=not keep))


def sweep(root: str, names: Iterable[str] | None = None) -> None:
    """Remove the temporary volumes, all or those of `names`, that no container has any more.

    Where a container is damaged nobody knows what it has, and all of them stay.
    """
    if not os.path.isdir(f"{root}/volumes"):
        return
    if names is None:
        names = [name for name in os.listdir(f"{root}/volumes") if not name.startswith(".")]
    chosen = [_known(root, name) for name in names]
    doomed = [known.name for known in chosen if known and known.made and known.made.temporary]
    if doomed and not any(container.trouble for container in catalogue.every(root)):
        for _ in remove_unused(root, doomed, temporary=True):
            pass


@contextmanager
def _alone(root: str) -> Iterator[None]:
    """No other command makes or removes a volume. What a kill left of those that did is cleared away first."""
    os.makedirs(f"{root}/volumes", 0o700, exist_ok=True)
    everyone = os.open(f"{root}/volumes", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(everyone, fcntl.LOCK_EX)
        _clear_leftovers(root)
        yield
    finally:
        os.close(everyone)


def _clear_leftovers(root: str) -> None:
    for name in os.listdir(f"{root}/volumes"):
        path = f"{root}/volumes/{name}"
        if name.startswith(".new-"):
            remove_tree(path)  # whoever made it was alone, as this process is now
        elif name.startswith(".removed-"):
            with suppress(UfsError):  # no reason not to go on with another one
                _remove(_Hidden.claim(_read(path, name)))


def _make(root: str, made: Made) -> bool:
    directory = place(root, made.name)
    if os.path.lexists(directory):
        return False
    temporary = f"{root}/volumes/.new-{os.urandom(8).hex()}"
    os.mkdir(temporary, 0o700)
    try:
        os.mkdir(f"{temporary}/_data", 0o755)
        os.chmod(f"{temporary}/_data", 0o755)  # whatever the umask: every user of a container may look into it
        _write(temporary, made)
        os.close(os.open(f"{temporary}/fresh", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        os.rename(temporary, directory)
    except OSError:
        remove_tree(temporary)
        raise
    return True


class _Hidden(NamedTuple):
    """A volume under a name that nobody looks for, and the lock of who removes it; -1 where somebody else does."""

    known: Known
    lock: int

    @classmethod
    def claim(cls, known: Known) -> _Hidden:
        """For who is alone."""
        try:
            lock = os.open(known.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return cls(known, -1)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return cls(known, -1)
        return cls(known, lock)


def _hide(known: Known) -> _Hidden:
    hidden = f"{os.path.dirname(known.directory)}/.removed-{os.urandom(8).hex()}"
    os.rename(known.directory, hidden)
    return _Hidden.claim(known._replace(directory=hidden))


def _remove(hidden: _Hidden) -> int:
    """Remove a hidden volume: the bytes of its files."""
    known, lock = hidden
    if lock < 0:
        return 0
    try:
        freed = written(known.data)
        try:
            remove_tree(known.directory)
        except PermissionError:  # files of other ids of the container, or closed to their owner
            from launcher.container.lifecycle import remove_as_owner
            from launcher.sandbox import idmap

            remove_as_owner(known.directory, known.made.ids if known.made else idmap.choose().map)
    finally:
        os.close(lock)
    return freed


def _known(root: str, name: str) -> Known | None:
    directory = place(root, name)
    return _read(directory, name) if os.path.isdir(directory) else None


def _read(directory: str, name: str) -> Known:
    try:
        fields = state.document(f"{directory}/config.json")
        way, uids, gids = fields.pop("ids")
        uid_ranges, gid_ranges = [tuple(Range(*numbers) for numbers in side) for side in (uids, gids)]
        made = Made(**fields, ids=IdMap(way, uid_ranges, gid_ranges))
        if not isinstance(made.labels, dict) or not isinstance(made.created, int | float):
            raise TypeError("a field is of another kind")
    except (state.Corrupt, OSError) as error:
        return Known(name, directory, None, f"config.json cannot be read: {error}")
    except (KeyError, TypeError, ValueError) as error:
        return Known(name, directory, None, f"config.json is damaged or of another version: {error}")
    return Known(name, directory, made)


def _write(directory: str, made: Made) -> None:
    state.publish(f"{directory}/config.json", made._asdict())
