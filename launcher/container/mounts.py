"""What is to be mounted in a container: -v, --mount, --tmpfs, --volumes-from and the VOLUMEs of its image."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from launcher.container import settings, volumes
from launcher.errors import UfsError
from launcher.sandbox.spec import Volume

_FAILED = 125

KEYS = ("volume", "mount", "tmpfs", "volumes_from")
"""The options that this reads, as `launcher.cli.options` calls them."""

_ALWAYS_SO = frozenset(
    {"rbind", "private", "rprivate", "cached", "delegated", "consistent", "exec", "dev", "suid", "default"}
)
"""Binds are recursive and private; three are for Docker's virtual machines on other systems."""

_IN_FORCE = frozenset({"nosuid", "nodev", "noexec", "rslave", "nocopy", "U"})
_QUIET = {"nosuid": "suid", "nodev": "dev"}
"""In force on volumes and tmpfs unless the other word is given."""

_LABEL = "SELinux is on, and a label is not changed: chcon -Rt container_file_t DIRECTORY"
_NOT_HERE = {
    "z": _LABEL,
    "Z": _LABEL,
    "O": "a volume is not an overlay: mount one with ufs-mount and give that",
    "bind": "what is mounted below a directory comes with it, which the kernel wants here: leave it out",
    "slave": "write rslave: what is mounted below a directory comes with it",
    "unbindable": "mounts of the container are not seen elsewhere anyway; leave it out",
    "runbindable": "mounts of the container are not seen elsewhere anyway; leave it out",
    "shared": "mounts made in a container never reach the host; rslave passes those of the host on to the container",
    "rshared": "mounts made in a container never reach the host; rslave passes those of the host on to the container",
}

_TMPFS_KEYS = ("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "huge", "mpol")
"""Of tmpfs(5)."""


def given(values: Mapping[str, Any], image: Iterable[str], root: str) -> list[Volume]:
    """All mounts of a container, one for a place. `values` by `KEYS`, `image` the places of the image's volumes.

    What the command line says of a place goes before what another container has there, and that before the image. Below
    a place that is given nothing of the image's is put, since that could be a directory of the host.
    """
    found: dict[str, Volume] = {}
    named = [("-v", volume(text)) for text in values["volume"]]
    named += [("--mount", mount(text)) for text in values["mount"]]
    named += [("--tmpfs", tmpfs(text)) for text in values["tmpfs"]]
    for option, one in named:
        if one.target in found:
            raise UfsError(f"{option}: two mounts are for {one.target}; give one", _FAILED)
        found[one.target] = one
    for text in values["volumes_from"]:
        for one in _of_another(text, root):
            found.setdefault(one.target, one)
    places = list(found)
    for path in image:
        if not any(f"{path}/".startswith(f"{place}/") for place in places):
            found.setdefault(path, _anonymous(path, False, ()))
    return [
        one._replace(source=f"{volumes.place(root, one.name)}/_data") if one.kind == "volume" else one
        for one in found.values()
    ]


def volume(text: str) -> Volume:
    """-v SRC:DST[:OPTIONS], and DST alone. A SRC that begins with neither / nor . is the name of a volume."""
    fields = text.split(":")
    if len(fields) > 3 or not all(fields[:2]):
        raise UfsError(f"-v {text}: write SRC:DST[:OPTIONS], NAME:DST[:OPTIONS] or DST", _FAILED)
    where = f"-v {text}"
    options = [word for word in fields[2].split(",") if word] if len(fields) == 3 else []
    if len(fields) == 1:
        return _anonymous(_target(where, text), False, _words(where, "volume", []))
    return _made(where, _kind(fields[0]), fields[0], _target(where, fields[1]), options)


def mount(text: str) -> Volume:
    """--mount type=bind|volume|tmpfs,src=,dst=,...: comma-separated values, as Docker reads them."""
    import csv

    where, found = f"--mount {text}", dict[str, str]()
    for field in next(csv.reader([text]), []):
        key, equals, value = field.partition("=")
        name = _MOUNT_KEYS.get(key)
        if name is None:
            raise UfsError(f"{where}: there is no {key!r}; there are {', '.join(dict.fromkeys(_MOUNT_KEYS))}", _FAILED)
        found[name] = value if equals else "true"
    kind = found.pop("type", "volume")
    if kind not in ("bind", "volume", "tmpfs"):
        raise UfsError(f"{where}: type={kind}: there are bind, volume and tmpfs", _FAILED)
    if not found.get("dst"):
        raise UfsError(f"{where}: dst=, the place in the container, is missing", _FAILED)
    target, source = _target(where, found.pop("dst")), found.pop("src", "")
    options = _mount_options(where, kind, found)
    if kind == "tmpfs":
        if source:
            raise UfsError(f"{where}: a tmpfs has no source", _FAILED)
        return _tmpfs(where, target, options)
    if kind == "bind" and not source:
        raise UfsError(f"{where}: src=, the directory or file of the host, is missing", _FAILED)
    if kind == "volume" and not source:
        return _anonymous(target, "ro" in options, _words(where, kind, options))
    return _made(where, kind, source, target, options)


def tmpfs(text: str) -> Volume:
    """--tmpfs DST[:OPTIONS]."""
    path, _, options = text.partition(":")
    where = f"--tmpfs {text}"
    return _tmpfs(where, _target(where, path), [word for word in options.split(",") if word])


_MOUNT_KEYS = {
    "type": "type",
    "src": "src",
    "source": "src",
    "dst": "dst",
    "destination": "dst",
    "target": "dst",
    "readonly": "ro",
    "ro": "ro",
    "rw": "rw",
    "bind-propagation": "propagation",
    "consistency": "consistency",
    "bind-nonrecursive": "nonrecursive",
    "relabel": "relabel",
    "U": "U",
    "chown": "U",
    "tmpfs-size": "size",
    "tmpfs-mode": "mode",
    "volume-nocopy": "nocopy",
    "volume-driver": "driver",
}
_OF_KIND = {
    "propagation": ("bind",),
    "nonrecursive": ("bind",),
    "size": ("tmpfs",),
    "mode": ("tmpfs",),
    "nocopy": ("volume",),
    "driver": ("volume",),
}


def _mount_options(where: str, kind: str, found: dict[str, str]) -> list[str]:
    """The words of -v or --tmpfs that say the same."""
    words = []
    for key, value in found.items():
        if kind not in _OF_KIND.get(key, (kind,)):
            raise UfsError(f"{where}: {key} is for type={_OF_KIND[key][0]} alone", _FAILED)
        if key in ("ro", "rw", "nocopy", "nonrecursive", "U"):
            if value not in ("true", "false", "1", "0"):
                raise UfsError(f"{where}: {key}={value}: this has to be true or false", _FAILED)
            if value in ("true", "1"):
                words.append("bind" if key == "nonrecursive" else key)
            elif key == "rw":
                words.append("ro")
        elif key in ("size", "mode"):
            words.append(f"{key}={value}")
        elif key == "relabel":
            words.append({"shared": "z", "private": "Z"}.get(value, value))
        elif key == "driver" and value != "local":
            raise UfsError(f"{where}: volume-driver={value}: there is local alone", _FAILED)
        elif key in ("propagation", "consistency"):
            words.append(value)
    return words


def _kind(source: str) -> str:
    return "bind" if source.startswith(("/", "./", "../")) or source in (".", "..") else "volume"


def _made(where: str, kind: str, source: str, target: str, options: list[str]) -> Volume:
    words = _words(where, kind, options)
    if kind == "volume":
        return Volume("", target, "ro" in options, kind, volumes.checked(source), False, words)
    source = os.path.abspath(source)
    if not os.path.lexists(source):
        raise UfsError(f"{where}: {source} does not exist on this machine; create it first", _FAILED)
    if "rslave" in words:
        _check_receives(where, source)
    return Volume(source, target, "ro" in options, options=words)


def _anonymous(target: str, read_only: bool, words: tuple[str, ...]) -> Volume:
    words = words or tuple(_QUIET)
    return Volume("", target, read_only, "volume", volumes.new_name(), True, words)


def _target(where: str, path: str) -> str:
    """A place in the container, absolute and without dots."""
    target = os.path.normpath(path)
    if not target.startswith("/") or target.strip("/") == "":
        raise UfsError(f"{where}: the place in the container must be an absolute path other than /", _FAILED)
    target = "/" + target.lstrip("/")
    if target.split("/")[1] in ("proc", "sys"):
        raise UfsError(f"{where}: nothing can be mounted below /proc and /sys", _FAILED)
    return target


def _words(where: str, kind: str, options: list[str]) -> tuple[str, ...]:
    """The options that are to be put in force. `UfsError` for those that cannot be, and for those that nobody knows."""
    for word in options:
        if word in ("ro", "rw") or word in _ALWAYS_SO or (word in ("z", "Z") and not _has_labels()):
            continue
        if word in ("nocopy", "copy") and kind != "volume":
            raise UfsError(f"{where}: {word}: a directory of the host keeps its contents; leave it out", _FAILED)
        if word == "rslave" and kind != "bind":
            raise UfsError(f"{where}: {word}: nothing is mounted in a volume; leave it out", _FAILED)
        if word == "U" and kind == "tmpfs":
            raise UfsError(f"{where}: U: write uid= and gid=", _FAILED)
        if word in _IN_FORCE or word == "copy":
            continue
        says = _NOT_HERE.get(word)
        if says is None:
            raise UfsError(f"{where}: unknown option {word!r}; ro and rw are known", _FAILED)
        raise UfsError(f"{where}: {word}: {says}", _FAILED)
    for one, other in (("ro", "rw"), ("nocopy", "copy"), *((f"no{word}", word) for word in ("exec", "suid", "dev"))):
        if one in options and other in options:
            raise UfsError(f"{where}: {one} and {other} contradict each other", _FAILED)
    wanted = [word for word in options if word in _IN_FORCE]
    if kind != "bind":
        wanted += [word for word, other in _QUIET.items() if other not in options]
    return tuple(dict.fromkeys(wanted))


def _tmpfs(where: str, target: str, options: list[str]) -> Volume:
    """A tmpfs; nothing can be executed there unless `exec` is given, as with Docker."""
    own, words = [], []
    for word in options:
        key, equals, value = word.partition("=")
        if not equals:
            words.append(word)
        elif key not in _TMPFS_KEYS:
            raise UfsError(f"{where}: a tmpfs has no option {key!r}; it has {', '.join(_TMPFS_KEYS)}", _FAILED)
        else:
            own.append(f"{key}={_tmpfs_value(where, key, value)}")
    if "nocopy" in words or "notmpcopyup" in words:  # so it is anyway
        words = [word for word in words if word not in ("nocopy", "notmpcopyup")]
    if "tmpcopyup" in words:
        raise UfsError(f"{where}: tmpcopyup: a tmpfs is empty at first; a volume is filled from the image", _FAILED)
    in_force = _words(where, "tmpfs", words)
    if "exec" not in words:
        in_force = tuple(dict.fromkeys([*in_force, "noexec"]))
    return Volume("", target, "ro" in words, "tmpfs", "", False, (*own, *in_force))


def _tmpfs_value(where: str, key: str, value: str) -> str:
    if key == "mode" and (not value or set(value) - set("01234567") or int(value, 8) > 0o7777):
        raise UfsError(f"{where}: mode={value}: give an octal mode, as 1777", _FAILED)
    if key == "size" and not value.endswith("%"):  # which the kernel takes, too
        found = settings.size(value) if value != "0" else 0
        if found is None:
            raise UfsError(f"{where}: size={value}: give a number of bytes, as 64m", _FAILED)
        return str(found)
    return value


def _of_another(text: str, root: str) -> list[Volume]:
    """--volumes-from CONTAINER[:ro|rw]: what that one has, tmpfs apart."""
    from launcher.container import catalogue

    name, _, mode = text.partition(":")
    words = [word for word in mode.split(",") if word]
    for word in words:
        if word not in ("ro", "rw", "z"):
            raise UfsError(f"--volumes-from {text}: {word!r}: there are ro and rw", _FAILED)
    try:
        container = catalogue.find(root, name)
        mounts = container.config.volumes
    except UfsError as error:
        raise UfsError(f"--volumes-from {text}: {error}", _FAILED) from error
    return [one._replace(read_only=one.read_only or "ro" in words) for one in mounts if one.kind != "tmpfs"]


def _has_labels() -> bool:
    return os.path.exists("/sys/fs/selinux/enforce")


def _check_receives(where: str, source: str) -> None:
    """Whether mounts that somebody makes below `source` are passed on at all (mount_namespaces(7))."""
    real, found, mounted = os.path.realpath(source), "", False
    with open("/proc/self/mountinfo", errors="surrogateescape") as lines:
        for line in lines:
            fields = line.split()
            point = fields[4].encode(errors="surrogateescape").decode("unicode_escape", "surrogateescape")
            if f"{real}/".startswith(f"{point.rstrip('/')}/") and len(point) >= len(found):
                optional = fields[6 : fields.index("-")]
                found, mounted = point, any(word.startswith(("shared:", "master:")) for word in optional)
    if not mounted:
        raise UfsError(
            f"{where}: {found} is mounted neither shared nor slave, so no mounts can be passed on; "
            f"mount --make-rshared {found}",
            _FAILED,
        )
