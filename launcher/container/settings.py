"""From an image's configuration and the options of `ufs-run` to what the container is to be."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from launcher.container import keys
from launcher.container.config import DETACH_KEYS, LOG_DRIVERS, Log
from launcher.errors import UfsError
from launcher.sandbox.command import DEFAULT_PATH

if TYPE_CHECKING:
    from launcher.image.oci import Platform


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
    if not whole:
        raise UfsError(f"{name} says no command to run; give one after its name", 125)
    if not whole[0]:
        raise UfsError("cannot run '': the first word of the command is empty", 127)
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
        key, equals, value = pair.partition("=")
        if equals and key:
            found[key] = value
        else:
            found.pop(key, None)  # a name alone unsets it, as Docker merges variables
    return found | variables(files, given)


def variables(files: Iterable[str], given: Iterable[str]) -> dict[str, str]:
    """Those of --env-file, then those of -e."""
    found: dict[str, str] = {}
    for path in files:
        _read_file(found, path)
    for pair in given:
        _set(found, pair, "-e")
    return found


def entrypoint(image: ImageDefaults, given: str | None) -> list[str]:
    """The words at the beginning of `argv` that are the Entrypoint's."""
    if given is not None:
        return [given] if given else []
    return list(image.entrypoint)


def labels(image: Mapping[str, str], given: Iterable[str]) -> dict[str, str]:
    """The image's and those of --label K=V; K alone is empty."""
    found = dict(image)
    for pair in given:
        key, _, value = pair.partition("=")
        if not key:
            raise UfsError(f"--label {pair!r} is not K=V", 125)
        found[key] = value
    return found


def detach_keys(given: str | None) -> str:
    """--detach-keys, or the usual ones."""
    return keys.checked(given, DETACH_KEYS)


def stop_signal(given: str | None, image: str) -> str:
    """--stop-signal, else the image's; an image's that does not exist here is no reason not to run it."""
    if given is None:
        return image
    from launcher.sandbox import signal_names

    try:
        signal_names.number(given)
    except UfsError as error:
        raise UfsError(f"--stop-signal: {error}", 125) from error
    return given


def seconds(option: str, given: str | None, default: int) -> int:
    """A number of seconds; -1 is without end."""
    if given is None:
        return default
    if not given.removeprefix("-").isdecimal() or not given.isascii() or int(given) < -1:
        raise UfsError(f"{option} {given!r}: give a number of seconds, or -1 for no limit", 125)
    return int(given)


def new_privileges(options: Iterable[str]) -> bool:
    """--security-opt: whether no_new_privs is off. With Docker that is the default, here it has to be asked for."""
    allowed = False
    for option in options:
        name, _, value = option.replace(":", "=", 1).partition("=")
        if name == "no-new-privileges" and value in ("", "true", "false"):
            allowed = value == "false"
        elif name in ("seccomp", "systempaths", "unmask"):
            raise UfsError(f"--security-opt {option}: to run containers inside this one, give --nested instead", 125)
        elif (name, value) not in (("label", "disable"), ("apparmor", "unconfined")):
            raise UfsError(
                f"--security-opt {option}: there is no-new-privileges, true or false; labels and profiles of SELinux "
                "and AppArmor are never applied",
                125,
            )
    return allowed


def log(driver: str | None, options: Iterable[str]) -> Log:
    """--log-driver and --log-opt. json-file, Docker's default, means the recording that there is."""
    known = {None: LOG_DRIVERS[0], "json-file": LOG_DRIVERS[0], "local": LOG_DRIVERS[0]}
    name = known.get(driver, driver)
    if name not in LOG_DRIVERS:
        raise UfsError(f"--log-driver {driver}: there are {' and '.join(LOG_DRIVERS)}", 125)
    found = Log(name)
    for pair in options:
        key, _, value = pair.partition("=")
        if key == "max-size":
            found = found._replace(max_size=_size(pair, value))
        elif key == "max-file":
            if not value.isdecimal() or not value.isascii() or int(value) < 1:
                raise UfsError(f"--log-opt {pair}: give the number of files, at least 1", 125)
            found = found._replace(max_file=int(value))
        else:
            raise UfsError(f"--log-opt {pair}: there are max-size and max-file", 125)
    return found


def _size(pair: str, value: str) -> int:
    found = size(value)
    if found is None:
        raise UfsError(f"--log-opt {pair}: give a number of bytes, as 10m", 125)
    return found


def size(value: str) -> int | None:
    """Bytes, also as 10k, 10m or 10g: of 1024, as Docker counts here. None for what is no such number."""
    digits = value.lower().removesuffix("b").rstrip("kmg")
    unit = value.lower().removesuffix("b")[len(digits) :]
    if not digits.isdecimal() or not digits.isascii() or unit not in ("", "k", "m", "g") or int(digits) < 1:
        return None
    return int(digits) << 10 * ("", "k", "m", "g").index(unit)


def check_platform(wanted: str | None, has: Platform, name: str) -> None:
    """`UfsError` unless an image for `has` is what --platform asks for."""
    if not wanted:
        return
    from launcher.image import platforms

    asked = platforms.parse(wanted)
    if not platforms.matches(asked, has):
        raise UfsError(f"{name} is for {has}, not {asked}; if its archive has both, ufs load --platform {asked}", 125)


def directories(volumes: Iterable[str]) -> list[str]:
    """The places of an image's volumes, absolute, but for the root and what lies in the kernel's file systems."""
    found = [os.path.normpath("/" + path.lstrip("/")) for path in volumes]
    return [path for path in found if path.split("/")[1] not in ("", "dev", "proc", "sys")]


def working_directory(image: str, given: str | None) -> str:
    """Absolute; a relative image setting counts from /, and no name is none given."""
    if given and not given.startswith("/"):
        raise UfsError(f"-w {given}: the working directory must be an absolute path", 125)
    return os.path.normpath("/" + (given or image or "/").lstrip("/"))


def hostname(given: str | None, container_id: str) -> str:
    """At most 64 bytes (HOST_NAME_MAX), without what would break /etc/hosts. Docker takes other characters, too."""
    name = given or container_id[:12]
    if len(os.fsencode(name)) > 64 or not name.isprintable() or any(c in " #" for c in name):
        raise UfsError(f"--hostname {name!r}: a host name has up to 64 bytes, no blanks and no '#'", 125)
    return name


def _set(found: dict[str, str], pair: str, where: str) -> None:
    """K=V; K alone takes the variable of this environment, K* all that begin so, as podman has it."""
    key, equals, value = pair.partition("=")
    if not key or "\0" in pair:
        raise UfsError(f"{where}: {pair!r} is not K=V", 125)
    if equals:
        found[key] = value
    elif key.endswith("*"):
        found.update({name: value for name, value in os.environ.items() if name.startswith(key[:-1])})
    elif key in os.environ:
        found[key] = os.environ[key]


def _read_file(found: dict[str, str], path: str) -> None:
    """A file of --env-file as Docker reads it: values keep their blanks, and there are no quotes."""
    try:
        with open(path, "rb") as stream:
            lines = stream.read().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise UfsError(f"--env-file {path}: {error.strerror}", 125) from error
    for number, line in enumerate(lines, 1):
        pair = os.fsdecode(line.removesuffix(b"\r").lstrip())
        if not pair or pair.startswith("#"):
            continue
        key, equals, _ = pair.partition("=")
        if not equals:
            pair = key = pair.rstrip()
        if any(c.isspace() for c in key):
            raise UfsError(f"--env-file {path}, line {number}: {key!r} has blanks; write K=V without any around K", 125)
        _set(found, pair, f"--env-file {path}, line {number}")
