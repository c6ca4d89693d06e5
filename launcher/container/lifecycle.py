"""Containers of a store: making, finding and removing their directories.

containers/<id>/ is published complete: it is made under another name (`.new-<id>`), locked, filled and renamed. The
lock, flock(2) on the directory, is inherited by every process of the container that is ours, so it is held for as
long as any of them lives, and the kernel drops it with the last. Whoever finds it free finds an ended container.
"""

from __future__ import annotations

import fcntl
import os
import time
from typing import NamedTuple

from launcher.container import config, names, state
from launcher.container.removal import remove_tree
from launcher.errors import UfsError
from launcher.sandbox import namespaces
from launcher.sandbox.idmap import IdMap
from launcher.sandbox.protocol import Channel

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Container(NamedTuple):
    """One container of a store."""

    directory: str
    config: config.Config

    def state(self) -> state.State:
        """The state last written; see `in_use` for the truth."""
        return state.read(self.directory)

    def in_use(self) -> bool:
        """Whether a process of it lives."""
        probe = os.open(self.directory, _OPEN)
        try:
            fcntl.flock(probe, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(probe)
        return False


def create(root: str, wanted: config.Config) -> tuple[Container, int]:
    """Publish a new container in the store at `root` and hold its lock: (container, descriptor of the lock).

    `wanted.name` may be empty: then it gets a random one. Raises `UfsError` where the name is taken.
    """
    containers = f"{root}/containers"
    os.makedirs(containers, 0o700, exist_ok=True)
    directory = f"{containers}/{wanted.id}"
    temporary = f"{containers}/.new-{wanted.id}"
    everyone = os.open(containers, _OPEN)
    try:
        fcntl.flock(everyone, fcntl.LOCK_EX)  # from the look at names to the publication
        _sweep(root)
        made = wanted._replace(name=_free_name(root, wanted.name))
        os.mkdir(temporary, 0o700)
        try:
            lock = os.open(temporary, _OPEN)
            fcntl.flock(lock, fcntl.LOCK_EX)
            config.write(temporary, made)
            state.write(temporary, state.Created(made.created))
            os.rename(temporary, directory)
        except OSError:
            remove_tree(temporary)
            raise
    finally:
        os.close(everyone)
    return Container(directory, made), lock


def every(root: str) -> list[Container]:
    """All containers of the store, the newest first."""
    found = []
    try:
        ids = os.listdir(f"{root}/containers")
    except FileNotFoundError:
        return []
    for name in ids:
        if name.startswith("."):
            continue
        directory = f"{root}/containers/{name}"
        try:
            found.append(Container(directory, config.read(directory)))
        except (FileNotFoundError, NotADirectoryError):
            continue  # removed meanwhile, or nothing of ours
    return sorted(found, key=lambda container: container.config.created, reverse=True)


def find(root: str, wanted: str) -> Container:
    """The container with this name, id or unambiguous beginning of an id."""
    containers = every(root)
    for container in containers:
        if wanted in (container.config.name, container.config.id):
            return container
    matches = [container for container in containers if wanted and container.config.id.startswith(wanted)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UfsError(f"{wanted} is the beginning of {len(matches)} container ids; give more of it")
    raise UfsError(f"no container {wanted!r}; `ufs ps --all` lists them")


def remove(container: Container, *, force: bool = False) -> None:
    """Remove an ended container; `force` kills a running one first."""
    name = container.config.name
    lock = _try_lock(container.directory)
    if lock is None and force:
        lock = _kill(container)
    if lock is None:
        raise UfsError(f"container {name} is running; stop it first, or use --force")
    try:
        remove_as_owner(container.directory, container.config.ids)
    finally:
        os.close(lock)


def remove_as_owner(directory: str, ids: IdMap) -> None:
    """Remove a directory of a container as root of its user namespace, to whose ids the files belong."""

    def body(_: Channel) -> int:
        remove_tree(directory)
        return 0

    pid, channel = namespaces.fork_mapped(ids, "remover", body)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    channel.close()
    if status != 0:
        raise UfsError(f"could not remove all of {directory}; the reason is above")


def ended_at(container: Container) -> float:
    """When the container was last heard of, in seconds since 1970."""
    known = container.state()
    if isinstance(known, state.Exited):
        return known.at
    return os.stat(f"{container.directory}/state.json").st_mtime


def now() -> float:
    """Seconds since 1970."""
    return time.time()


def _sweep(root: str) -> None:
    """Remove what a kill at the wrong moment left: directories never published, ended containers of --rm."""
    for name in os.listdir(f"{root}/containers"):
        if name.startswith(".new-"):
            remove_tree(f"{root}/containers/{name}")  # whoever made it held the lock that is ours now
    for container in every(root):
        if not container.config.remove:
            continue
        try:
            lock = _try_lock(container.directory)
            if lock is not None:
                remove_as_owner(container.directory, container.config.ids)
                os.close(lock)
        except FileNotFoundError:
            continue  # its own server has just removed it
        except UfsError:
            continue  # no reason not to start another container; `ufs rm` says what is wrong with this one


def _free_name(root: str, wanted: str) -> str:
    taken = {container.config.name: container.config.id for container in every(root)}
    if not wanted:
        return next(name for name in names.proposals() if name not in taken)
    if wanted in taken:
        raise UfsError(
            f"the name {wanted!r} is taken by container {taken[wanted][:12]}; remove it (`ufs rm {wanted}`) "
            "or choose another",
            125,
        )
    return wanted


def _try_lock(directory: str) -> int | None:
    """The lock's descriptor, or None while a process of the container holds it."""
    lock = os.open(directory, _OPEN)
    try:
        # Shared first: many may look at once without taking one another for the container.
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def _kill(container: Container) -> int | None:
    """Kill process 1 and wait until the container's processes have let go of the lock.

    The pid comes from state.json and is trusted only while the lock is held by others: a pid that was given to
    another process meanwhile is recognised by not being process 1 of a pid namespace.
    """
    known = container.state()
    if not isinstance(known, state.Running):
        return None
    try:
        handle = os.pidfd_open(known.pid)
    except ProcessLookupError:
        handle = -1
    if handle >= 0:
        if _is_namespace_init(known.pid):
            _signal_kill(handle)
        os.close(handle)
    lock = os.open(container.directory, _OPEN)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def _is_namespace_init(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/status") as status:
            for line in status:
                if line.startswith("NSpid:"):
                    numbers = line.split()[1:]
                    return len(numbers) > 1 and numbers[-1] == "1"
    except (FileNotFoundError, ProcessLookupError):
        return False
    return False


def _signal_kill(handle: int) -> None:
    import signal

    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        return  # it ended by itself
