"""What a layer is refused for."""

from __future__ import annotations


class LayerError(ValueError):
    """A layer that cannot be part of an image. One line that names the layer, the member and the reason."""


class CutError(LayerError):
    """A layer of which only the beginning is there."""


class CutShort(ValueError):
    """What is being read ends too early: the reason of a `CutError`."""


def show(name: bytes) -> str:
    """A name from an archive, fit for one line on a terminal: quoted, escaped and cut at 200 bytes."""
    text = repr(name[:200].decode("utf-8", "backslashreplace"))
    return text + "..." if len(name) > 200 else text
