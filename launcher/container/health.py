"""Whether a container is well: what its image's HEALTHCHECK and --health-* ask, and what the last checks said.

Docker's rules (moby, daemon/health.go) and field names. The supervisor runs the checks
(`launcher.supervisor.checking`) and keeps what came of them in the container's health.json:

    {"Status": "healthy", "FailingStreak": 0, "Log": [{"Start": ..., "End": ..., "ExitCode": 0, "Output": ...}, ...]}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from launcher.container import state
from launcher.container.config import Health
from launcher.errors import UfsError

STARTING, HEALTHY, UNHEALTHY, NONE = "starting", "healthy", "unhealthy", "none"
NAME = "health.json"
_KEPT = 5
_UNITS = {"h": 3600, "m": 60, "s": 1, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = r"(\d+\.?\d*|\.\d+)(h|ms|m|us|µs|ns|s)"
_OPTIONS = ("interval", "timeout", "start_period", "start_interval", "retries")


def wanted(image: Mapping[str, Any], shell: list[str], values: Mapping[str, Any]) -> Health | None:
    """The image's Healthcheck with the options of a command line over it; None where nothing is to be checked."""
    given = {key: values[f"health_{key}"] for key in _OPTIONS if values[f"health_{key}"] is not None}
    command = values["health_cmd"]
    if values["no_healthcheck"]:
        if given or command is not None:
            raise UfsError("--no-healthcheck and --health-* exclude each other", 125)
        return None
    test = ["CMD-SHELL", command] if command else _test(image)
    argv = _argv(test, shell)
    if not argv:
        if given:
            option = next(iter(given)).replace("_", "-")
            raise UfsError(f"--health-{option}: nothing is checked, the image has no check; give --health-cmd", 125)
        return None
    defaults = Health([], [])
    interval, timeout, start_period, start_interval = (
        _seconds(key, image, given) or float(getattr(defaults, key)) for key in _OPTIONS[:-1]
    )
    retries = _retries(image, given) or defaults.retries
    return Health(argv, test, interval, timeout, start_period, start_interval, retries)


def duration(option: str, text: str) -> float:
    """Seconds, of a duration as Go writes them: 30s, 1m30s, 500ms."""
    if text == "0":
        return 0.0
    if not re.fullmatch(f"({_PART})+", text, re.ASCII):
        raise UfsError(f"{option} {text}: give a time as 30s, 1m30s or 500ms", 125)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in re.findall(_PART, text))
    if 0 < seconds < 1e-3:
        raise UfsError(f"{option} {text}: the least is 1ms", 125)
    return seconds


def fresh() -> dict[str, Any]:
    """What is known at the start of a container."""
    return {"Status": STARTING, "FailingStreak": 0, "Log": []}


def publish(directory: str, known: dict[str, Any]) -> None:
    """Replace health.json."""
    state.publish(f"{directory}/{NAME}", known)


def read(directory: str) -> dict[str, Any] | None:
    """What is known; None where it never began or the file is damaged."""
    with suppress(FileNotFoundError, state.Corrupt):
        known = state.document(f"{directory}/{NAME}")
        if isinstance(known.get("Status"), str) and isinstance(known.get("Log"), list):
            return known
    return None


def after(check: Health, known: Mapping[str, Any], result: Mapping[str, Any], age: float) -> dict[str, Any]:
    """What is known after a further check; `age` is for how long the container had run when it began."""
    status, streak = known["Status"], known["FailingStreak"]
    if result["ExitCode"] == 0:
        status, streak = HEALTHY, 0
    elif status != STARTING or age >= check.start_period:
        streak += 1
        if streak >= check.retries:
            status = UNHEALTHY
    return {"Status": status, "FailingStreak": streak, "Log": [*known["Log"], result][-_KEPT:]}


def shown(directory: str, check: Health | None, seen: state.Seen) -> dict[str, Any] | None:
    """Docker's State.Health: None where nothing is checked. Of one that does not run it says unhealthy."""
    if check is None or isinstance(seen, state.Created | state.Starting | state.Dead):
        return None
    known = read(directory) or fresh()
    return known if isinstance(seen, state.Running | state.Paused) else {**known, "Status": UNHEALTHY}


def _test(image: Mapping[str, Any]) -> list[str]:
    test = image.get("Test") or []
    if not isinstance(test, list) or not all(isinstance(word, str) and "\0" not in word for word in test):
        raise _malformed("Test")
    return test


def _argv(test: list[str], shell: list[str]) -> list[str]:
    kind, *words = test or ["NONE"]
    if kind == "CMD":
        return words
    if kind == "CMD-SHELL" and words:
        return [*(shell or ["/bin/sh", "-c"]), words[0]]
    if kind not in ("NONE", ""):
        raise UfsError(f"the image's health check is of unknown kind {kind!r}; --no-healthcheck leaves it out", 125)
    return []


def _seconds(key: str, image: Mapping[str, Any], given: Mapping[str, str]) -> float:
    """Of one of the times; 0 where neither says it."""
    if key in given:
        return duration(f"--health-{key.replace('_', '-')}", given[key])
    name = "".join(part.capitalize() for part in key.split("_"))
    value = image.get(name) or 0
    if not isinstance(value, int) or value < 0:
        raise _malformed(name)
    return value / 10**9


def _retries(image: Mapping[str, Any], given: Mapping[str, str]) -> int:
    value = given["retries"] if "retries" in given else image.get("Retries") or 0
    if isinstance(value, str):
        if not value.isdecimal() or not value.isascii():
            raise UfsError(f"--health-retries {value}: give a number", 125)
        value = int(value)
    if not isinstance(value, int) or value < 0:
        raise _malformed("Retries")
    return value


def _malformed(name: str) -> UfsError:
    return UfsError(f"the image's health check is malformed ({name}); --no-healthcheck leaves it out", 125)
