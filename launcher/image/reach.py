"""What a store needs: all that its index.json leads to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from launcher.errors import UfsError
from launcher.image import oci, typed
from launcher.image.place import Place, read

_LEADING = ("manifests", "layers", "blobs")
"""Lists of descriptors in indexes, manifests and artifact manifests."""


def blobs(place: Place) -> set[str]:
    """The digits of every blob that index.json leads to, be it of an image or of something else.

    Where a document is missing or damaged, nothing can be known of what it led to.
    """
    found: set[str] = set()
    todo = [item for item in place.entries() if isinstance(item, dict)]
    while todo:
        item = todo.pop()
        try:
            digits = oci.check_digest(str(item.get("digest")), "index.json")
        except typed.BadDocument:
            continue
        if digits in found:
            continue
        found.add(digits)
        if oci.is_document(str(item.get("mediaType", ""))):
            todo += _named(place, digits)
    return found


def _named(place: Place, digits: str) -> Iterator[dict[str, Any]]:
    """The descriptors in a document."""
    path = place.blob(digits)
    try:
        value = typed.load(read(path) or b"", path)
    except UfsError:
        return
    if not isinstance(value, dict):
        return
    lists = [value.get(key) for key in _LEADING]
    for item in [value.get("config"), *(item for items in lists if isinstance(items, list) for item in items)]:
        if isinstance(item, dict) and "digest" in item:
            yield item
