"""The image that a command line names, pulled where the store lacks it.

On the way of every start: what only a pull needs is imported for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from launcher.errors import UfsError
from launcher.image.resolve import NoImage, is_reference, resolve

if TYPE_CHECKING:
    from launcher.image.resolve import HostImage, StoredImage
    from launcher.image.store import Store

MISSING, ALWAYS, NEVER = "missing", "always", "never"
"""When an image is pulled, as Docker's --pull has it."""

_FAILED = 125


def image(name: str, store: Store, when: str = MISSING, platform: str | None = None) -> StoredImage | HostImage:
    """The image. `UfsError` (status 125) where there is none and none can be had.

    An archive, a layout, an id and ``host`` are what they are; `when` is about names of registries.
    """
    if when == ALWAYS and is_reference(name):
        _pull(name, store, platform)
    try:
        return resolve(name, store)
    except NoImage as missing:
        if when == NEVER or not is_reference(name):
            raise
        try:
            _pull(name, store, platform)
        except UfsError as error:
            raise UfsError(f"{missing}; pulling it failed: {error}", _FAILED) from None
    return resolve(name, store)


def _pull(name: str, store: Store, platform: str | None) -> None:
    from launcher.cli.transfers import Transfers
    from launcher.image import platforms
    from launcher.image.load import Silent
    from launcher.registry.endpoints import Registries
    from launcher.registry.pull import pull

    registries = Registries.read()
    with Transfers("Downloading") as transfers:
        pull(
            registries.named(name),
            store,
            registries,
            transfers,
            Silent(),
            platforms.parse(platform) if platform else None,
        )
