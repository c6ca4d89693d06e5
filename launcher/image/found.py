"""What a source is found to hold: images, their documents checked, and where their layers are."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from launcher.errors import UfsError
from launcher.image import platforms
from launcher.image.oci import Descriptor, ImageConfig, Platform
from launcher.image.source import Bytes

_MAX_LAYERS = 1000


class LayerSource(NamedTuple):
    """One layer in a source. `descriptor` is None in docker-archives, which state the diff id only."""

    label: str
    blob: Bytes | None  # None: the source lacks it, so the store must have it
    diff_id: str
    descriptor: Descriptor | None
    missing: str = "save the whole image again"
    """What to do where neither the source nor the store has it."""


class Found(NamedTuple):
    """One image in a source, its documents checked; the layers are not read yet.

    `manifest` and its bytes are None in docker-archives: it is written once the layers' digests are known.
    """

    names: list[str]
    manifest: tuple[Descriptor, bytes] | None
    config: ImageConfig
    config_bytes: bytes
    layers: list[LayerSource]

    @property
    def image(self) -> str:
        """The image id."""
        return hashlib.sha256(self.config_bytes).hexdigest()


def check(config: ImageConfig, layers: int, wanted: Platform | None, what: str) -> None:
    """Whether a config fits the number of layers and the platform that was asked for."""
    if len(config.diff_ids) != layers:
        raise UfsError(f"{what} has {len(config.diff_ids)} diff ids for {layers} layers; the image is malformed")
    if layers > _MAX_LAYERS:
        raise UfsError(f"{what}: an image has at most {_MAX_LAYERS} layers, this one {layers}")
    if wanted is not None and not platforms.matches(wanted, config.platform):
        raise UfsError(f"{what} is for {config.platform}, not {wanted}; leave --platform out to load it")
