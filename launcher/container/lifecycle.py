"""Making, holding, renaming and removing the directories of containers.

containers/<id>/ is published complete: it is made under another name (`.new-<id>`), locked, filled and renamed. It is
removed the same way round: renamed to `.removed-<id>` first, so that it is there as a whole or not at all.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from launcher.container import catalogue, config, control, lock, names, state
from launcher.container.catalogue import Container
from launcher.container.removal import remove_tree, vanish
from launcher.errors import UfsError
from launcher.sandbox import namespaces
from launcher.sandbox.idmap import IdMap
from launcher.sandbox.protocol import Channel, PeerGone

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FIRST, _LONGEST = 0.0005, 0.02  # seconds between two looks at what another command is about to finish
_PATIENCE_WITH_US = 2.0  # seconds for a supervisor to answer; one that was stopped does not
_PATIENCE = 20.0  # seconds for a killed container to write out what it has in memory


def create(
    root: str, wanted: config.Config, initial: state.State, fill: Callable[[str], None]
) -> tuple[Container, int]:
    """Publish a new container in the store at `root` and hold its lock: (container, descriptor of the lock).

    `initial` is Starting where it is started at once. `wanted.name` may be empty: then it gets a random one. `fill`
    writes further files into the directory that it is given, before anybody can see it. Raises `UfsError` where the
    name is taken.
    """
    containers = f"{root}/containers"
    os.makedirs(containers, 0o700, exist_ok=True)
    directory = f"{containers}/{wanted.id}"
    temporary = f"{containers}/.new-{wanted.id}"
    with _alone(root):
        present = catalogue.every(root)
        _sweep(root, present)
        made = wanted._replace(name=_free_name(present, wanted.name))
        os.mkdir(temporary, 0o700)
        try:
            held = lock.take(temporary)
            assert held is not None
            config.write(temporary, made)
            state.write(temporary, initial)
            fill(temporary)
            os.rename(temporary, directory)
        except OSError:
            remove_tree(temporary)
            raise
    return Container(directory, made), held


def hold(container: Container) -> int | None:
    """The lock of a container that is not in use, None where it is; see `lock.take`. UfsError where it is gone."""
    try:
        return lock.take(container.directory)
    except FileNotFoundError as error:
        raise UfsError(f"container {container.name} was removed meanwhile") from error


def kill_and_hold(container: Container) -> int:
    """The lock of a container, which is killed where it runs."""
    deadline, pause = time.monotonic() + _PATIENCE, _FIRST
    while True:
        held = hold(container)
        if held is not None:
            return held
        if not _stopped(container):
            _kill(container)
        if time.monotonic() > deadline:
            raise UfsError(f"container {container.name} was killed and does not end; is its supervisor stopped?")
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST)


def _stopped(container: Container) -> bool:
    """Have its supervisor end it, and for good: killed by somebody else, its policy might start it again."""
    channel = control.connect(container.directory)
    if channel is None:
        return False
    try:
        channel.send("stop", number=signal.SIGKILL, grace=0)
        watch = select.poll()
        watch.register(channel, select.POLLIN)
        return bool(watch.poll(_PATIENCE_WITH_US * 1000))
    except PeerGone:
        return False
    finally:
        channel.close()


def _kill(container: Container) -> None:
    """Kill process 1 as far as it is known. Its pid is trusted only while the lock is held, and for the very process
    that it was written down for.
    """
    try:
        known = state.read(container.directory)
    except FileNotFoundError:
        return  # gone
    except state.Corrupt:
        control.ask(container.directory, "signal", "done", number=signal.SIGKILL)
        return
    if not isinstance(known, state.Running | state.Paused):
        return  # it is just starting or ending
    try:
        handle = os.pidfd_open(known.pid)
    except ProcessLookupError:
        return  # it has just ended
    try:
        if state.ticks(known.pid) == known.ticks and known.boot == state.boot_id():
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        return  # the same
    finally:
        os.close(handle)


def rename(root: str, container: Container, name: str) -> None:
    """Give a container another name, also while it runs."""
    names.checked(name)

    def named(made: config.Config) -> config.Config:
        _free_name([other for other in catalogue.every(root) if other.id != container.id], name)
        return made._replace(name=name)

    alter(root, container, named)


def alter(root: str, container: Container, change: Callable[[config.Config], config.Config]) -> None:
    """Publish another config.json of a container, also while it runs; `change` is given what it is now."""
    with _alone(root):
        try:
            config.write(container.directory, change(config.read(container.directory)))
        except state.Corrupt as error:
            raise UfsError(f"container {container.name} is damaged ({error})") from error
        except FileNotFoundError as error:
            raise UfsError(f"container {container.name} was removed meanwhile") from error


def remove(container: Container, held: int, *, volumes: bool = False) -> None:
    """Remove a container whose lock the caller holds, and which this lets go of; `volumes`: its anonymous ones, too.

    Those of a container that was to be removed at its end go in any case.
    """
    try:
        letting_go = removing(container, keep=not volumes)
        remove_as_owner(container.directory, ids_of(container))
    finally:
        lock.release(held)
    letting_go()


def removing(container: Container, *, keep: bool) -> Callable[[], None]:
    """Before a container is removed, however that comes: what is to be done when it is gone, about its volumes."""
    if container.trouble or not any(volume.anonymous for volume in container.config.volumes):
        return lambda: None
    from launcher.container import volumes

    root, names = os.path.dirname(os.path.dirname(container.directory)), volumes.anonymous(container.config)
    volumes.release(root, names, keep=keep and not container.config.remove)
    return lambda: volumes.sweep(root, names)


def ids_of(container: Container) -> IdMap:
    """The ids that its files belong to; for a damaged one what a new container would get."""
    if container.trouble:
        from launcher.sandbox import idmap

        return idmap.choose().map
    return container.config.ids


def remove_as_owner(directory: str, ids: IdMap) -> None:
    """Remove a directory of a container as root of its user namespace, to whose ids the files belong."""

    def body(_: Channel) -> int:
        remove_tree(vanish(directory))
        return 0

    try:
        pid, channel = namespaces.fork_mapped(ids, "remover", body)
    except UfsError as refused:
        _remove_as_caller(directory, refused)
        return
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    channel.close()
    if status != 0:
        raise UfsError(f"could not remove all of {directory}; the reason is above")


def _remove_as_caller(directory: str, refused: UfsError) -> None:
    """Where there are no user namespaces, and so a container never began, all of it is the caller's; else `refused`."""
    try:
        remove_tree(vanish(directory))
    except PermissionError:
        raise refused from None


def now() -> float:
    """Seconds since 1970."""
    return time.time()


@contextmanager
def _alone(root: str) -> Iterator[None]:
    """From a look at the names to the publication of one, no other command gives any."""
    everyone = os.open(f"{root}/containers", _OPEN)
    try:
        fcntl.flock(everyone, fcntl.LOCK_EX)
        yield
    finally:
        os.close(everyone)


def _sweep(root: str, present: list[Container]) -> None:
    """Remove what a kill at the wrong moment left: directories half made or half removed, ended containers of --rm."""
    for name in os.listdir(f"{root}/containers"):
        if name.startswith(".new-"):
            remove_tree(f"{root}/containers/{name}")  # whoever made it was alone, as this process is now
        elif name.startswith(".removed-"):
            _sweep_one(catalogue.open_container(f"{root}/containers/{name}"))
    for container in present:
        if not container.trouble and container.config.remove:
            _sweep_one(container)


def _sweep_one(container: Container) -> None:
    try:
        held = lock.take(container.directory)
        if held is None:
            return
        if not isinstance(state.observe(container.directory), state.Created):
            # Its volumes wait for `volumes.sweep`: whose lock comes before the one that is held here.
            remove_as_owner(container.directory, ids_of(container))
        lock.release(held)
    except FileNotFoundError:
        return  # whoever was removing it has just finished
    except UfsError:
        return  # no reason not to start another container; `ufs rm` says what is wrong with this one


def _free_name(present: list[Container], wanted: str) -> str:
    taken = {container.name: container.id for container in present}
    if not wanted:
        return next(name for name in names.proposals() if name not in taken)
    if wanted in taken:
        raise UfsError(
            f"the name {wanted!r} is taken by container {taken[wanted][:12]}; remove it (`ufs rm {wanted}`) "
            "or choose another",
            125,
        )
    return wanted
