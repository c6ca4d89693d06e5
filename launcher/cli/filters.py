"""`--filter K=V` of `ufs ps` and `ufs container prune`: Docker's keys; values of one key are alternatives."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from launcher.container import catalogue, state
from launcher.container.catalogue import Container
from launcher.errors import UfsError

Chosen = dict[str, list[str]]

HEALTHS = ("starting", "healthy", "unhealthy", "none")
STATES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")


def parse(texts: tuple[str, ...], keys: tuple[str, ...] | None = None) -> Chosen:
    """The values by key. UfsError for what is no filter."""
    found: Chosen = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not value:
            raise UfsError(f"--filter {text!r}: write KEY=VALUE")
        if key not in (keys or KEYS):
            raise UfsError(f"--filter {text!r}: there is no filter {key!r}; there are {', '.join(keys or KEYS)}")
        if key == "status" and value not in STATES:
            raise UfsError(f"--filter {text!r}: a status is one of {', '.join(STATES)}")
        if key == "health" and value not in HEALTHS:
            raise UfsError(f"--filter {text!r}: a health is one of {', '.join(HEALTHS)}")
        if key == "exited" and not value.removeprefix("-").isdecimal():
            raise UfsError(f"--filter {text!r}: give an exit status")
        if key == "name":
            _pattern(text, value)
        if key == "until":
            moment(text, value)
        found.setdefault(key, []).append(value)
    return found


def fits(chosen: Chosen, container: Container, seen: state.Seen, root: str) -> bool:
    """Whether a container has what every key asks for."""
    return all(any(KEYS[key](container, seen, value, root) for value in values) for key, values in chosen.items())


def moment(text: str, value: str) -> float:
    """A time: RFC 3339, seconds since 1970, or a duration before now as 10m or 1h30m."""
    if value and re.fullmatch(r"(\d+(\.\d+)?(h|m|s|ms|us|ns))+", value):
        units = {"h": 3600, "m": 60, "s": 1, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
        parts = re.findall(r"(\d+(?:\.\d+)?)(h|ms|m|s|us|ns)", value)
        return time.time() - sum(float(number) * units[unit] for number, unit in parts)
    if re.fullmatch(r"\d+(\.\d+)?", value):
        return float(value)
    from datetime import datetime

    try:
        return datetime.fromisoformat(value).timestamp()
    except ValueError as error:
        raise UfsError(
            f"{text}: give a time as 2026-11-25T13:00:00Z, seconds since 1970, or 10m for ten minutes ago"
        ) from error


def _pattern(text: str, value: str) -> re.Pattern[str]:
    try:
        return re.compile(value)
    except re.error as error:
        raise UfsError(f"--filter {text!r}: not a regular expression: {error}") from error


def _status(container: Container, seen: state.Seen, value: str, root: str) -> bool:
    return value == ("created" if isinstance(seen, state.Starting) else state.name(seen))


def _label(container: Container, seen: state.Seen, value: str, root: str) -> bool:
    key, equals, wanted = value.partition("=")
    labels = {} if container.trouble else container.config.labels
    return key in labels and (not equals or labels[key] == wanted)


def _ancestor(container: Container, seen: state.Seen, value: str, root: str) -> bool:
    if container.trouble:
        return False
    made = container.config
    if value == made.image or (
        made.image_id and made.image_id.startswith(value.removeprefix("sha256:")) and len(value) >= 4
    ):
        return True
    from launcher.image.resolve import find
    from launcher.image.store import Store

    record = find(value, Store(root).records())
    return record is not None and record.image == made.image_id


def _made_after(container: Container, seen: state.Seen, value: str, root: str) -> bool:
    return container.created > catalogue.find(root, value).created


def _made_before(container: Container, seen: state.Seen, value: str, root: str) -> bool:
    return container.created < catalogue.find(root, value).created


def _volume(container: Container, seen: state.Seen, value: str, root: str) -> bool:
    if container.trouble:
        return False
    return any(value in (volume.name, volume.source, volume.target) for volume in container.config.volumes)


def health_of(container: Container, seen: state.Seen, unchecked: str) -> str:
    """How its checks find a container; `unchecked` where it has none."""
    if container.trouble or container.config.health is None:
        return unchecked
    from launcher.container import health

    known = health.shown(container.directory, container.config.health, seen)
    return str(known["Status"]) if known else unchecked


def _network(container: Container, seen: state.Seen, value: str, root: str) -> bool:
    return value == "host"


KEYS: dict[str, Callable[[Container, state.Seen, str, str], bool]] = {
    "id": lambda container, seen, value, root: container.id.startswith(value),
    "name": lambda container, seen, value, root: bool(_pattern(value, value).search(container.name)),
    "status": _status,
    "exited": lambda container, seen, value, root: isinstance(seen, state.Exited) and seen.status == int(value),
    "label": _label,
    "ancestor": _ancestor,
    "before": _made_before,
    "since": _made_after,
    "volume": _volume,
    "network": _network,
    "health": lambda container, seen, value, root: health_of(container, seen, "none") == value,
    "until": lambda container, seen, value, root: container.created < moment(value, value),
}
