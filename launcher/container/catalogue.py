"""The containers of a store: listing and finding them. Reading disturbs nobody and needs no lock."""

from __future__ import annotations

import os

from launcher.container import config, state
from launcher.container.config import Config
from launcher.errors import UfsError


class Container:
    """One container of a store. `directory` has all that is kept of it; `trouble` says why it cannot be read."""

    def __init__(self, directory: str, made: Config | None, trouble: str = "") -> None:
        self.directory = directory
        self.id = os.path.basename(directory)
        self.trouble = trouble
        self._config = made

    @property
    def config(self) -> Config:
        """What it was made with. UfsError for a damaged one."""
        if self._config is None:
            raise UfsError(f"container {self.id[:12]} is damaged ({self.trouble}); ufs rm {self.id[:12]} removes it")
        return self._config

    @property
    def name(self) -> str:
        """Its name; of a damaged one the short id."""
        return self._config.name if self._config else self.id[:12]

    @property
    def created(self) -> float:
        """Seconds since 1970; of a damaged one when its directory last changed."""
        return self._config.created if self._config else os.stat(self.directory).st_mtime

    def observe(self) -> state.Seen:
        """What it is doing now. FileNotFoundError where it is gone."""
        if self._config is None:
            return state.Dead(self.created, self.trouble)
        return state.observe(self.directory)


def open_container(directory: str) -> Container:
    """The container in `directory`. FileNotFoundError where there is none."""
    try:
        return Container(directory, config.read(directory))
    except state.Corrupt as error:
        return Container(directory, None, str(error))
    except FileNotFoundError:
        # Without config.json it is damaged; without its directory it is gone.
        if not os.path.isdir(directory):
            raise
        return Container(directory, None, "config.json is missing")


def every(root: str) -> list[Container]:
    """All containers of the store at `root`, the newest first."""
    found = []
    for identity in identities(root):
        try:
            found.append(open_container(f"{root}/containers/{identity}"))
        except (FileNotFoundError, NotADirectoryError):
            continue  # removed meanwhile, or nothing of ours
    return sorted(found, key=lambda container: container.created, reverse=True)


def identities(root: str) -> list[str]:
    """The ids in the store, in no order."""
    try:
        names = os.listdir(f"{root}/containers")
    except FileNotFoundError:
        return []
    return [name for name in names if not name.startswith(".")]


def find(root: str, wanted: str) -> Container:
    """The container with this name, id or unambiguous beginning of an id."""
    containers = every(root)
    for container in containers:
        if wanted in (container.name, container.id):
            return container
    matches = [container for container in containers if wanted and container.id.startswith(wanted)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UfsError(f"{wanted} is the beginning of {len(matches)} container ids; give more of it")
    raise UfsError(f"no container {wanted!r}; `ufs ps --all` lists them")
