"""JSON documents of strangers: read within a limit, each field checked for its type. What is wrong is `BadDocument`."""

from __future__ import annotations

import json
import re
from typing import Any

from launcher.errors import UfsError

MAX_DOCUMENT = 4 << 20
"""Bytes of one JSON document; the limit that registries set (distribution specification, "Pushing Manifests")."""

_SURROGATE = re.compile("[\ud800-\udfff]")


class BadDocument(UfsError):
    """A document that is not what it should be; the message names the document and the field."""


class Fields:
    """Typed access to a JSON object of a stranger; `what` names the document in messages.

    A key counts in any case of its letters where it is not there as it is asked for, as to Go's encoding/json.
    """

    def __init__(self, value: Any, what: str) -> None:
        if not isinstance(value, dict):
            raise BadDocument(f"{what} is not a JSON object")
        self._value = value
        self._what = what

    def value(self, key: str) -> Any:
        """Whatever is there; None where nothing is."""
        if key in self._value:
            return self._value[key]
        folded = key.lower()
        return next((item for name, item in self._value.items() if name.lower() == folded), None)

    def text(self, key: str, default: str | None = None) -> str:
        """A string; `default` where it is absent or null, without one it must be there."""
        value = self.value(key)
        value = default if value is None else value
        if not isinstance(value, str):
            raise self.bad(key, "a string")
        return value

    def number(self, key: str) -> int:
        """A size: an integer that is not negative."""
        value = self.value(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
            raise self.bad(key, "a number of bytes")
        return value

    def items(self, key: str) -> list[Any]:
        """A list; empty where it is absent or null."""
        value = self.value(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.bad(key, "a list")
        return value

    def texts(self, key: str) -> list[str]:
        """A list of strings; empty where it is absent or null. A null in it is an empty string, as to Go."""
        value = ["" if item is None else item for item in self.items(key)]
        if not all(isinstance(item, str) for item in value):
            raise self.bad(key, "a list of strings")
        return value

    def strings_of(self, key: str) -> list[str]:
        """The strings among whatever is there, be it a list or one: for names, which an image can do without."""
        value = self.value(key)
        return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)]

    def words(self, key: str) -> list[str]:
        """A command: a list of strings, or one string for a list of one (strslice of Docker). No empty words alone."""
        value = self.value(key)
        words = [value] if isinstance(value, str) else self.texts(key)
        return words if any(words) else []

    def keys(self, key: str) -> list[str]:
        """The keys of an object; of a list of strings these."""
        return self.texts(key) if isinstance(self.value(key), list) else list(self.mapping(key))

    def mapping(self, key: str) -> dict[str, Any]:
        """An object; empty where it is absent or null."""
        value = self.value(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.bad(key, "an object")
        return value

    def strings(self, key: str) -> dict[str, str]:
        """An object of strings; empty where it is absent or null. A null in it is an empty string, as to Go."""
        value = {name: "" if item is None else item for name, item in self.mapping(key).items()}
        if not all(isinstance(item, str) for item in value.values()):
            raise self.bad(key, "an object of strings")
        return value

    def fields(self, key: str) -> Fields:
        """An object within; empty where it is absent or null."""
        return Fields(self.mapping(key), f"{self._what}, field {key!r}")

    def bad(self, key: str, wanted: str) -> BadDocument:
        """What is wrong with a field."""
        return BadDocument(f"{self._what}: field {key!r} is not {wanted}; the image is malformed")


def too_long(what: str, size: int, limit: int = MAX_DOCUMENT) -> BadDocument:
    """For a document of more than `limit` bytes."""
    return BadDocument(f"{what} has {size} bytes, the limit for a JSON document is {limit}; is this an image?")


def load(data: bytes, what: str, limit: int = MAX_DOCUMENT) -> Any:
    """Parse one JSON document. What is no character in it becomes U+FFFD, as in Go's encoding/json."""
    if len(data) > limit:
        raise too_long(what, len(data), limit)
    try:
        value = json.loads(data.decode("utf-8-sig", "replace"))
        # Lone surrogates would pass as text and fail when something encodes them. Only an escape makes one.
        if b"\\u" in data:
            text = json.dumps(value, ensure_ascii=False)
            if not text.isascii() and _SURROGATE.search(text):
                value = json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise BadDocument(f"{what} is not valid JSON ({reason}); the image is damaged") from None
    return value
