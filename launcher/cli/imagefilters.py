"""`--filter K=V` of `ufs images` and `ufs prune`: Docker's keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from launcher.errors import UfsError
from launcher.image.resolve import find, unknown
from launcher.image.store import Record, Store

if TYPE_CHECKING:
    from launcher.cli.imagelist import Row

Chosen = dict[str, list[str]]

_ALL = ("label", "label!")
"""Keys of which every value has to fit; of the others one."""


def parse(texts: Sequence[str], keys: Sequence[str] | None = None) -> Chosen:
    """The values by key. UfsError for what is no filter."""
    if not texts:
        return {}
    from launcher.cli import filters

    found = filters.parse(tuple(texts), tuple(keys or KEYS))
    for value in found.get("dangling", []):
        if value.lower() not in _BOOLEANS:
            raise UfsError(f"--filter 'dangling={value}': write true or false")
    return found


def fits(chosen: Chosen, row: Row, records: list[Record], store: Store) -> bool:
    """Whether an image has what every key asks for."""
    for key, values in chosen.items():
        test = KEYS[key]
        needed = all if key in _ALL else any
        if not needed(test(row, value, records, store) for value in values):
            return False
    return True


def seconds(created: str) -> float | None:
    """RFC 3339 as seconds since 1970; None where an image says nothing, or year 1 as those that are reproducible."""
    try:
        moment = datetime.fromisoformat(created)
        return moment.timestamp() if moment.year > 1970 else None
    except (ValueError, OverflowError):
        return None


_BOOLEANS = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}


def _reference(row: Row, value: str, records: list[Record], store: Store) -> bool:
    named = row.named
    if named is None:
        return False
    pattern = _pattern(value)
    return any(pattern.fullmatch(text) for text in (named.familiar, named.familiar_name, str(named), named.name))


def _pattern(glob: str) -> re.Pattern[str]:
    """Go's path.Match: ``*`` and ``?`` stop at a slash."""
    parts = {"*": "[^/]*", "?": "[^/]"}
    found, at = [], 0
    while at < len(glob):
        end = glob.find("]", at + 2) if glob[at] == "[" else -1
        if end > 0:
            inner = glob[at + 1 : end]
            negated = inner.startswith(("^", "!"))
            inner = re.escape(inner[1:] if negated else inner).replace(r"\-", "-")
            found.append(f"[{'^' if negated else ''}{inner}]")
            at = end + 1
            continue
        found.append(parts.get(glob[at], re.escape(glob[at])))
        at += 1
    try:
        return re.compile("".join(found))
    except re.error as error:
        raise UfsError(f"--filter reference={glob}: not a pattern: {error}") from None


def _made(name: str, records: list[Record], store: Store) -> float:
    record = find(name, records)
    if record is None:
        raise unknown(name, records, 1, "")
    return seconds(store.config(record.image).created) or 0


def _before(row: Row, value: str, records: list[Record], store: Store) -> bool:
    return (seconds(row.created) or 0) < _made(value, records, store)


def _since(row: Row, value: str, records: list[Record], store: Store) -> bool:
    return (seconds(row.created) or 0) > _made(value, records, store)


def _label(row: Row, value: str, records: list[Record], store: Store) -> bool:
    key, equals, wanted = value.partition("=")
    labels = row.config.labels if row.config else {}
    return key in labels and (not equals or labels[key] == wanted)


def _until(row: Row, value: str, records: list[Record], store: Store) -> bool:
    from launcher.cli.filters import moment

    return (seconds(row.created) or 0) < moment(value, value)


KEYS: dict[str, Callable[[Row, str, list[Record], Store], bool]] = {
    "reference": _reference,
    "before": _before,
    "since": _since,
    "label": _label,
    "label!": lambda *arguments: not _label(*arguments),
    "dangling": lambda row, value, records, store: (not row.record.name) == _BOOLEANS[value.lower()],
    "until": _until,
}
