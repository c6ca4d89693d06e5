"""From an image's configuration and the options of `ufs-run` to what the container is to be."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Protocol

from launcher.errors import UfsError
from launcher.sandbox.command import DEFAULT_PATH
from launcher.sandbox.spec import Volume


class ImageDefaults(Protocol):
    """What is used of `launcher.image.oci.ImageConfig`."""

    @property
    def entrypoint(self) -> list[str]: ...
    @property
    def cmd(self) -> list[str]: ...
    @property
    def env(self) -> list[str]: ...


def argv(image: ImageDefaults, entrypoint: str | None, words: list[str], name: str) -> list[str]:
    """Entrypoint and Cmd as Docker joins them: words replace Cmd, --entrypoint replaces both."""
    if entrypoint is not None:
        whole = ([entrypoint] if entrypoint else []) + words
    else:
        whole = [*image.entrypoint, *(words or image.cmd)]
    if not whole or not whole[0]:
        raise UfsError(f"{name} says no command to run; give one after its name", 125)
    if any("\0" in word for word in whole):
        raise UfsError("a word of the command has a NUL character in it", 125)
    return whole


def environment(
    image: ImageDefaults, files: Iterable[str], given: Iterable[str], *, hostname: str, terminal: bool
) -> dict[str, str]:
    """The command's variables: defaults, then the image's, then those of files, then those of -e."""
    found = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname}
    if terminal:
        found["TERM"] = "xterm"
    for pair in image.env:
        key, _, value = pair.partition("=")
        found[key] = value
    for path in files:
        for line in _lines(path):
            _set(found, line, f"--env-file {path}")
    for pair in given:
        _set(found, pair, "-e")
    return found


def volume(text: str) -> Volume:
    """-v SRC:DST[:OPTIONS]; a relative SRC must begin with a dot, since a bare word names a volume elsewhere."""
    fields = text.split(":")
    if len(fields) not in (2, 3) or not fields[0] or not fields[1]:
        raise UfsError(f"-v {text}: write SRC:DST or SRC:DST:ro", 125)
    source, target = fields[:2]
    options = fields[2].split(",") if len(fields) == 3 else []
    unknown = [option for option in options if option not in ("ro", "rw")]
    if unknown:
        raise UfsError(f"-v {text}: unknown option {unknown[0]!r}; ro and rw are known", 125)
    if not source.startswith(("/", "./", "../")) and source not in (".", ".."):
        raise UfsError(f"-v {text}: there are no named volumes; for a directory write ./{source}", 125)
    target = os.path.normpath(target)
    if not target.startswith("/") or target.strip("/") == "":
        raise UfsError(f"-v {text}: the place in the container must be an absolute path other than /", 125)
    target = "/" + target.lstrip("/")
    if target.split("/")[1] in ("proc", "sys"):
        raise UfsError(f"-v {text}: nothing can be mounted below /proc and /sys", 125)
    source = os.path.abspath(source)
    if not os.path.lexists(source):
        raise UfsError(f"-v {text}: {source} does not exist on this machine; create it first", 125)
    return Volume(source, target, "ro" in options)


def working_directory(image: str, given: str | None) -> str:
    """Absolute; a relative image setting counts from /."""
    if given is not None and not given.startswith("/"):
        raise UfsError(f"-w {given}: the working directory must be an absolute path", 125)
    return os.path.normpath("/" + (given or image or "/").lstrip("/"))


def hostname(given: str | None, container_id: str) -> str:
    """At most 64 bytes (HOST_NAME_MAX), without what would break /etc/hosts."""
    name = container_id[:12] if given is None else given
    if not name or len(name) > 64 or not all(c.isascii() and (c.isalnum() or c in "-.") for c in name):
        raise UfsError(f"--hostname {name!r}: a host name has 1 to 64 letters, digits, '-' or '.'", 125)
    return name


def _set(found: dict[str, str], pair: str, where: str) -> None:
    key, equals, value = pair.partition("=")
    if not key or "\0" in pair or any(c.isspace() for c in key):
        raise UfsError(f"{where}: {pair!r} is not K=V", 125)
    if equals:
        found[key] = value
    elif key in os.environ:
        found[key] = os.environ[key]


def _lines(path: str) -> list[str]:
    try:
        with open(path, errors="surrogateescape") as stream:
            lines = [line.strip() for line in stream]
    except OSError as error:
        raise UfsError(f"--env-file {path}: {error.strerror}", 125) from error
    return [line for line in lines if line and not line.startswith("#")]
