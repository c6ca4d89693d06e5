"""Functions of templates, and how Go shows values."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from launcher.cli import output


class Map(dict[str, Any]):
    """A dictionary with keys of any kind, as labels: one that is not there is no mistake."""


class BadCall(Exception):
    """A function cannot do anything with what it was given."""


def shown(value: Any) -> str:
    """As `{{value}}` shows it: fmt's %v."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{shown(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, list | tuple):
        return "[" + " ".join(map(shown, value)) + "]"
    return str(value)


def true(value: Any) -> bool:
    """What `if` takes for true: everything that is not empty or zero."""
    return bool(value)


def to_json(value: Any) -> str:
    """JSON on one line, without the escapes for HTML."""
    return output.as_json(value, separators=(",", ":"))


def _printf(form: str, *values: Any) -> str:
    left = list(values)

    def one(match: re.Match[str]) -> str:
        flags, verb = match.groups()
        if verb == "%":
            return "%"
        if not left:
            return f"%!{verb}(MISSING)"
        value = left.pop(0)
        if verb == "q":
            return f"%{flags}s" % json.dumps(shown(value), ensure_ascii=False)
        if verb in "vst":
            return f"%{flags}s" % shown(value)
        return str(f"%{flags}{verb}" % value)

    try:
        return re.sub(r"%([-+# 0-9.]*)([a-zA-Z%])", one, form)
    except (TypeError, ValueError) as error:
        raise BadCall(f"printf {form!r}: {error}") from error


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list | tuple | str) and isinstance(key, int) and 0 <= key < len(value):
            value = value[key]
        else:
            raise BadCall(f"index: nothing has the index {shown(key)} here")
    return value


def _slice(value: Any, *ends: int) -> Any:
    try:
        return value[slice(*ends)] if len(ends) > 1 else value[ends[0] :] if ends else value
    except TypeError as error:
        raise BadCall(f"slice: {error}") from error


def _len(value: Any) -> int:
    try:
        return len(value)
    except TypeError as error:
        raise BadCall(f"len of {shown(value)}: it has none") from error


def _join(values: Any, between: str = "") -> str:
    return between.join(map(shown, values or []))


def _and(*values: Any) -> Any:
    return next((value for value in values if not true(value)), values[-1])


def _or(*values: Any) -> Any:
    return next((value for value in values if true(value)), values[-1])


def _println(*values: Any) -> str:
    return " ".join(map(shown, values)) + "\n"


def _truncate(text: str, limit: int) -> str:
    return shown(text)[:limit]


def _pad(text: str, before: int, after: int) -> str:
    return " " * before + shown(text) + " " * after if text else shown(text)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": to_json,
    "join": _join,
    "split": lambda text, between: shown(text).split(between),
    "upper": lambda text: shown(text).upper(),
    "lower": lambda text: shown(text).lower(),
    "title": lambda text: shown(text).title(),
    "truncate": _truncate,
    "pad": _pad,
    "len": _len,
    "index": _index,
    "slice": _slice,
    "print": lambda *values: "".join(map(shown, values)),
    "printf": _printf,
    "println": _println,
    "and": _and,
    "or": _or,
    "not": lambda value: not true(value),
    "eq": lambda first, *others: first in others,
    "ne": lambda first, other: first != other,
    "lt": lambda first, other: first < other,
    "le": lambda first, other: first <= other,
    "gt": lambda first, other: first > other,
    "ge": lambda first, other: first >= other,
}
