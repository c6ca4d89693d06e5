"""Where an image's registry is reached: mirrors, plain HTTP, blocked names, short names.

Read from the files that podman, buildah and skopeo have for it (containers-registries.conf(5)): the user's
registries.conf instead of the system's, then each file of registries.conf.d, later ones over earlier ones. Without any
file a registry is reached by HTTPS under its own name, and a short name is Docker's.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from launcher.errors import UfsError
from launcher.image import reference
from launcher.image.reference import Reference

_HUB = "registry-1.docker.io"
"""The API host of docker.io."""

_SYSTEM = "/etc/containers"


class Endpoint(NamedTuple):
    """One place that may have an image: `host` with its port, the repository's name there."""

    host: str
    repository: str
    insecure: bool
    """Certificates need not be known, and plain HTTP serves where there is no TLS at all."""
    mirror: bool = False

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.host}/{self.repository}"


class Rule(NamedTuple):
    """One ``[[registry]]`` table."""

    prefix: str
    location: str
    insecure: bool
    blocked: bool
    mirrors: list[Mirror]


class Mirror(NamedTuple):
    """One ``[[registry.mirror]]`` table; `serves` is ``all``, ``digest-only`` or ``tag-only``."""

    location: str
    insecure: bool
    serves: str


class Registries:
    """What the files say; read once."""

    def __init__(self, rules: Mapping[str, Rule], aliases: Mapping[str, str]) -> None:
        self._rules = rules
        self._aliases = aliases

    @classmethod
    def read(cls) -> Registries:
        """From the files of this user and this machine. UfsError for one that cannot be understood."""
        rules: dict[str, Rule] = {}
        aliases: dict[str, str] = {}
        for path in _files():
            document = _load(path)
            if document is None:
                continue
            for table in _tables(document, "registry", path):
                rule = _rule(table, path)
                rules[rule.prefix] = rule
            aliases |= {name: value for name, value in document.get("aliases", {}).items() if isinstance(value, str)}
        return cls(rules, aliases)

    def named(self, text: str) -> Reference:
        """The reference that a user means: an alias of short names first, then Docker's rules."""
        wanted = reference.parse(text)
        short = text.partition("@")[0]
        tag = f":{wanted.tag}" if wanted.tag else ""
        alias = self._aliases.get(short.removesuffix(tag))
        if not alias or "/" in short:
            return wanted
        return reference.parse(alias)._replace(tag=wanted.tag, digest=wanted.digest)

    def endpoints(self, wanted: Reference, insecure: bool | None = None) -> list[Endpoint]:
        """The places to ask for an image, in order: mirrors, then the registry itself.

        `insecure`: what the command line says of the registry itself. UfsError where its name is blocked.
        """
        rule = self._rule_for(wanted)
        if rule is None:
            return [_own(wanted.registry, wanted.repository, bool(insecure))]
        if rule.blocked:
            raise UfsError(f"{wanted.familiar} is blocked by registries.conf (prefix {rule.prefix!r})")
        rest = "" if rule.prefix.startswith("*.") else wanted.name[len(rule.prefix) :]
        found = []
        for mirror in rule.mirrors:
            if mirror.serves == "all" or (mirror.serves == "digest-only") == (wanted.digest is not None):
                found.append(_at(mirror.location + rest, mirror.insecure)._replace(mirror=True))
        itself = rule.location + rest if rule.location else wanted.name
        return [*found, _at(itself, rule.insecure if insecure is None else insecure)]

    def insecure(self, host: str) -> bool:
        """What is said of a whole registry, for login and search."""
        rule = self._rules.get(host)
        return rule is not None and rule.insecure

    def _rule_for(self, wanted: Reference) -> Rule | None:
        """The longest prefix that matches up to a separator."""
        fitting = [rule for rule in self._rules.values() if _matches(rule.prefix, wanted)]
        return max(fitting, key=lambda rule: len(rule.prefix), default=None)


def api_host(registry: str) -> str:
    """The host that serves a registry's API."""
    return _HUB if registry == reference.DEFAULT_REGISTRY else registry


def _own(registry: str, repository: str, insecure: bool) -> Endpoint:
    return Endpoint(api_host(registry), repository, insecure)


def _at(location: str, insecure: bool) -> Endpoint:
    registry, _, repository = location.partition("/")
    return _own(registry, repository, insecure)


def _matches(prefix: str, wanted: Reference) -> bool:
    if prefix.startswith("*."):
        return wanted.registry.endswith(prefix[1:])
    full = str(wanted)
    return full.startswith(prefix) and full[len(prefix) : len(prefix) + 1] in ("", "/", ":", "@")


def _files() -> Iterator[str]:
    """All files that count, the weakest first."""
    own = os.path.join(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"), "containers")
    named = os.environ.get("CONTAINERS_REGISTRIES_CONF")
    if named:
        yield named
    elif os.path.exists(f"{own}/registries.conf"):
        yield f"{own}/registries.conf"
    else:
        yield f"{_SYSTEM}/registries.conf"
    for directory in (f"{_SYSTEM}/registries.conf.d", f"{own}/registries.conf.d"):
        try:
            names = sorted(os.listdir(directory))
        except (FileNotFoundError, NotADirectoryError):
            continue
        yield from (f"{directory}/{name}" for name in names if name.endswith(".conf"))
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    yield f"{cache}/containers/short-name-aliases.conf"


def _load(path: str) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UfsError(f"{path} is not valid TOML: {error}; correct it") from None


def _tables(document: Mapping[str, Any], key: str, path: str) -> list[dict[str, Any]]:
    found = document.get(key, [])
    if not isinstance(found, list) or not all(isinstance(table, dict) for table in found):
        raise UfsError(f"{path}: {key!r} has to be [[{key}]] tables; see containers-registries.conf(5)")
    return found


def _rule(table: Mapping[str, Any], path: str) -> Rule:
    location, prefix = _text(table, "location", path), _text(table, "prefix", path)
    if not location and not prefix:
        raise UfsError(f"{path}: a [[registry]] table has neither location nor prefix")
    mirrors = [_mirror(mirror, bool(table.get("mirror-by-digest-only")), path) for mirror in table.get("mirror", [])]
    return Rule(prefix or location, location, bool(table.get("insecure")), bool(table.get("blocked")), mirrors)


def _mirror(table: Mapping[str, Any], by_digest: bool, path: str) -> Mirror:
    serves = "digest-only" if by_digest else _text(table, "pull-from-mirror", path) or "all"
    return Mirror(_text(table, "location", path), bool(table.get("insecure")), serves)


def _text(table: Mapping[str, Any], key: str, path: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        raise UfsError(f"{path}: {key!r} has to be a string")
    return value.rstrip("/")
