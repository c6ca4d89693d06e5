"""Starting a container with a terminal that its user may leave and come back to.

Such a container cannot be supervised by the command itself, since that ends with the detach keys. So its supervisor is
in the background from the beginning, and the command is attached to it before it begins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from launcher.errors import UfsError
from launcher.supervisor import background
from launcher.supervisor.client import Client, Left

if TYPE_CHECKING:
    from launcher.container.catalogue import Container
    from launcher.image.resolve import Image
    from launcher.sandbox.protocol import Channel


def start(container: Container, image: Image, held: int, *, wants_input: bool, proxy: bool) -> int:
    """Start a container that is Starting, attached: its exit status, 0 when it was left."""
    channel = background.start(container, image, held)
    return stay(channel, wants_input=wants_input, keys=container.config.detach_keys, proxy=proxy)


def stay(channel: Channel, *, wants_input: bool, keys: str, proxy: bool) -> int:
    """Attach to the container at the other end of `channel` until it ends or is left: the exit status as above."""
    client = Client(channel, wants_input=wants_input, keys=keys, proxy=proxy)
    client.begin()
    return _status(client.run())


def _status(left: Left) -> int:
    if left.status is None:
        return 0
    if left.error is not None:
        raise UfsError(left.error, left.status)
    return left.status
