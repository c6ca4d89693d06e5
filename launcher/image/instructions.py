"""Changes to what an image says of running it, as lines of a Dockerfile: --change of `docker commit` and `import`."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Sequence
from typing import Any

from launcher.errors import UfsError

Section = dict[str, Any]
"""The object "config" of an image's configuration (OCI image spec, config.md)."""

_PORT = re.compile(r"[0-9]{1,5}(-[0-9]{1,5})?(/(tcp|udp|sctp))?")


def apply(section: Section, lines: Sequence[str]) -> None:
    """Change `section` by instructions in their order. UfsError for what is none."""
    command_set = False
    for line in lines:
        word, _, rest = line.strip().partition(" ")
        name = word.upper()
        make = _MAKERS.get(name)
        if make is None:
            raise UfsError(f"--change {line!r}: there are {', '.join(_MAKERS)}")
        make(section, rest.strip(), line)
        command_set = command_set or name == "CMD"
        if name == "ENTRYPOINT" and not command_set:  # as a Dockerfile has it: the old arguments were for the old one
            section.pop("Cmd", None)


def _words(rest: str, line: str) -> list[str] | None:
    """A JSON list of strings, None for anything else."""
    if not rest.startswith("["):
        return None
    try:
        found = json.loads(rest)
    except ValueError:
        return None
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise UfsError(f"--change {line!r}: the list may hold strings alone")
    return found


def _command(key: str) -> Callable[[Section, str, str], None]:
    def make(section: Section, rest: str, line: str) -> None:
        words = _words(rest, line)
        section[key] = words if words is not None else ["/bin/sh", "-c", rest] if rest else []

    return make


def _pairs(rest: str, line: str, alone: bool) -> dict[str, str]:
    """K=V K=V ..., with quotes as in a shell; or K V."""
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise UfsError(f"--change {line!r}: {error}") from None
    if words and "=" not in words[0] and not alone:
        key, _, value = rest.partition(" ")
        if value.strip():
            return {key: value.strip()}
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key or not (equals or alone):
            raise UfsError(f"--change {line!r}: {word!r} is not K=V")
        found[key] = value
    if not found:
        raise UfsError(f"--change {line!r}: say which, as K=V")
    return found


def _env(section: Section, rest: str, line: str) -> None:
    for key, value in _pairs(rest, line, alone=False).items():
        kept = [pair for pair in section.get("Env") or [] if pair.partition("=")[0] != key]
        section["Env"] = [*kept, f"{key}={value}"]


def _label(section: Section, rest: str, line: str) -> None:
    section["Labels"] = {**(section.get("Labels") or {}), **_pairs(rest, line, alone=False)}


def _expose(section: Section, rest: str, line: str) -> None:
    ports = {}
    for word in rest.split():
        if not _PORT.fullmatch(word):
            raise UfsError(f"--change {line!r}: {word!r} is not a port, as 80 or 53/udp")
        ports[word if "/" in word else word + "/tcp"] = dict[str, str]()
    if not ports:
        raise UfsError(f"--change {line!r}: say which port")
    section["ExposedPorts"] = {**(section.get("ExposedPorts") or {}), **ports}


def _volume(section: Section, rest: str, line: str) -> None:
    paths = _words(rest, line)
    paths = rest.split() if paths is None else paths
    if not paths or not all(paths):
        raise UfsError(f"--change {line!r}: say which directory")
    section["Volumes"] = {**(section.get("Volumes") or {}), **{path: dict[str, str]() for path in paths}}


def _workdir(section: Section, rest: str, line: str) -> None:
    if not rest:
        raise UfsError(f"--change {line!r}: say which directory")
    base = section.get("WorkingDir") or "/"
    section["WorkingDir"] = rest if rest.startswith("/") else f"{base.rstrip('/')}/{rest}"


def _text(key: str) -> Callable[[Section, str, str], None]:
    def make(section: Section, rest: str, line: str) -> None:
        if not rest or len(rest.split()) != 1:
            raise UfsError(f"--change {line!r}: it takes one word")
        section[key] = rest

    return make


def _onbuild(section: Section, rest: str, line: str) -> None:
    if not rest:
        raise UfsError(f"--change {line!r}: say which instruction")
    section["OnBuild"] = [*(section.get("OnBuild") or []), rest]


_MAKERS: dict[str, Callable[[Section, str, str], None]] = {
    "CMD": _command("Cmd"),
    "ENTRYPOINT": _command("Entrypoint"),
    "ENV": _env,
    "EXPOSE": _expose,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _text("StopSignal"),
    "USER": _text("User"),
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
