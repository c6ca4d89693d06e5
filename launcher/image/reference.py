"""Names of images: Docker's reference grammar and its normalisation.

The grammar is that of github.com/distribution/reference; the short forms are those of `docker`:
``alpine`` is ``docker.io/library/alpine:latest``, ``me/tool:1`` is ``docker.io/me/tool:1``.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from launcher.errors import UfsError

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
MIN_ID = 4
"""Hexadecimal digits that an abbreviated image id has at least."""

_MAX_NAME = 255  # registry and repository together
_MAX_REFERENCE = 512
_HOST = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*"
_REGISTRY = re.compile(rf"(?:{_HOST}|\[[a-fA-F0-9:]+\])(?::[0-9]+)?", re.ASCII)
_COMPONENT = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_ID = re.compile(rf"(?:sha256:)?([0-9a-f]{{{MIN_ID},64}})", re.ASCII)
_WHOLE_ID = re.compile(r"(?:sha256:)?[0-9a-f]{64}(?::[^:]*)?", re.ASCII)


class Reference(NamedTuple):
    """A normalised reference: `registry` and `repository` are always there, of tag and digest at least one."""

    registry: str
    repository: str
    tag: str | None
    digest: str | None = None

    @property
    def name(self) -> str:
        """Registry and repository, as ``docker.io/library/alpine``."""
        return f"{self.registry}/{self.repository}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"

    @property
    def familiar_name(self) -> str:
        """The name as people write it, without what normalising added: the shortest that means the same."""
        whole = (self.registry, self.repository)
        if self.registry != DEFAULT_REGISTRY:
            return self.name
        short = (self.repository.removeprefix("library/"), self.repository)
        return next((name for name in short if _split(name) == whole), self.name)

    @property
    def familiar(self) -> str:
        """The shortest form with its tag or digest, as ``alpine:latest``."""
        return self.familiar_name + str(self)[len(self.name) :]


def parse(text: str) -> Reference:
    """Normalise a reference as people write it. UfsError for what is none."""
    if len(text) > _MAX_REFERENCE:
        raise _refuse(text[:60] + "...", "it is too long")
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise _refuse(text, "after @ comes sha256: and 64 hexadecimal digits")
    colon = rest.rfind(":")
    tag = None
    if colon > rest.rfind("/"):
        rest, tag = rest[:colon], rest[colon + 1 :]
        if not _TAG.fullmatch(tag):
            raise _refuse(text, "a tag has up to 128 letters, digits, '_', '.' and '-'")
    registry, repository = _split(rest)
    if not _REGISTRY.fullmatch(registry):
        raise _refuse(text, f"{registry!r} is not a registry host")
    if not _REPOSITORY.fullmatch(repository):
        lower = repository.lower()
        hint = f"; did you mean {text.lower()!r}?" if _REPOSITORY.fullmatch(lower) else ""
        raise _refuse(text, f"a name has lower-case letters, digits and single separators{hint}")
    if len(registry) + 1 + len(repository) > _MAX_NAME:
        raise _refuse(text[:60] + "...", f"a name has at most {_MAX_NAME} characters")
    return Reference(registry, repository, tag or (None if digest else DEFAULT_TAG), digest or None)


def normalised(text: str) -> str:
    """The normalised form of a name that another tool gave; empty where it is none, as ``<none>:<none>``, or an id."""
    if _WHOLE_ID.fullmatch(text):
        return ""
    try:
        return str(parse(text))
    except UfsError:
        return ""


def is_tag(text: str) -> bool:
    """Whether it could be a tag."""
    return _TAG.fullmatch(text) is not None


def id_prefix(text: str) -> str | None:
    """The hexadecimal digits where `text` has the form of a whole or abbreviated image id, else None."""
    match = _ID.fullmatch(text)
    return match[1] if match else None


def _split(name: str) -> tuple[str, str]:
    """Registry and repository. The first component is a registry only if it could not be a repository's."""
    first, slash, rest = name.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        registry, repository = DEFAULT_REGISTRY, name
    else:
        registry, repository = first, rest
    if registry == "index.docker.io":
        registry = DEFAULT_REGISTRY
    if registry == DEFAULT_REGISTRY and "/" not in repository:
        repository = "library/" + repository
    return registry, repository


def _refuse(text: str, reason: str) -> UfsError:
    from launcher.image import foreign

    return UfsError(foreign.explain(text) or f"{text!r} is not an image name: {reason}", 125)
