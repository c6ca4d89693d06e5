"""Starting a container that was made before, once only however many commands ask for it at the same time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from launcher.container import etc, lifecycle, lock, logs, state
from launcher.container.catalogue import Container, open_container
from launcher.errors import UfsError

if TYPE_CHECKING:
    from launcher.image.resolve import Image
    from launcher.image.store import Store
    from launcher.sandbox.protocol import Channel

_FIRST, _LONGEST = 0.0005, 0.02  # seconds between two looks at what another command is about to finish


def take(store: Store, container: Container) -> tuple[Image, int] | None:
    """Hold a container that does not run, and mark it as Starting: its image and its lock. None where it runs."""
    name, pause = container.name, _FIRST
    while True:
        held = lifecycle.hold(container)
        if held is not None:
            try:
                return _begin(store, container, held), held
            except BaseException:
                lock.release(held)
                raise
        seen = container.observe()
        if isinstance(seen, state.Running | state.Restarting):
            return None
        if isinstance(seen, state.Paused):
            raise UfsError(f"container {name} is paused: unpause it first (ufs unpause {name})")
        if isinstance(seen, state.Dead):
            raise UfsError(f"container {name} is damaged ({seen.reason}); ufs rm {name} removes it")
        time.sleep(pause)  # another command is starting it, or what it ran is just ending
        pause = min(2 * pause, _LONGEST)


def start(store: Store, container: Container) -> Channel | None:
    """Start a container in the background: the first connection to its supervisor, which waits for what is asked
    there. None where it runs already.
    """
    from launcher.supervisor import background

    taken = take(store, container)
    return background.start(open_container(container.directory), *taken) if taken else None


def settled(container: Container) -> state.Created | state.Exited:
    """`state.settle` for a container whose lock is held. UfsError where its state cannot be read."""
    try:
        known = state.settle(container.directory)
    except state.Corrupt as error:
        name = container.name
        raise UfsError(f"container {name} is damaged ({error}); ufs rm {name} removes it") from error
    logs.Writer(container.directory, container.config.log).recover()
    return known


def image_of(store: Store, container: Container) -> Image:
    """The image that a container was made of. UfsError where it is gone."""
    from launcher.image.resolve import resolve

    made = container.config
    try:
        return resolve(made.image_id or made.image, store)
    except UfsError as error:
        raise UfsError(f"the image {made.image} of container {made.name} is gone; load it again ({error})") from error


def _begin(store: Store, container: Container, held: int) -> Image:
    known, image = settled(container), prepare(store, container)
    created = known.created if isinstance(known, state.Exited) else []
    state.move(container.directory, state.Starting(time.time(), created))
    return image


def prepare(store: Store, container: Container) -> Image:
    """Make the files that are made at every start of a container: its image. UfsError where that is gone."""
    image = image_of(store, container)
    etc.write(container.directory, container.config.hostname)
    return image
