"""The options of an overlay mount program, as container engines and mount(8) pass them.

One string or several, comma-separated, with ``\\,`` for a comma that belongs to a value and double quotes
around values that hold commas. In lowerdir, ``:`` parts directories; `unionfs.dirnames` says how names are read.
Empty options are passed over. What is unknown is named in `unknown` for the caller to warn about.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from unionfs import dirnames
from unionfs.ownership import Mapping

FLAGS = frozenset({"ro", "rw", "allow_other", "default_permissions", "squash_to_root", "writeback", "volatile"})
VALUES = frozenset(
    {"lowerdir", "upperdir", "workdir", "squash_to_uid", "squash_to_gid", "timeout"}
    | {"uidmapping", "gidmapping", "xattr_permissions"}
)
IGNORED = frozenset(
    # Of mount(8) and of engines: about the mount point or labels, which change nothing served here.
    {"dev", "nodev", "suid", "nosuid", "exec", "noexec", "atime", "noatime", "relatime", "async", "private"}
    | {
        "auto",
        "noauto",
        "_netdev",
        "nofail",
        "defaults",
        "user",
        "nouser",
        "fsname",
        "subtype",
        "context",
        "allow_root",
    }
    # Of fuse-overlayfs: how it works inside.
    | {"clone_fd", "fast_ino", "fsync", "lazytime", "max_idle_threads", "noacl", "noxattrs", "static_nlink", "threaded"}
)
"""What is accepted and has no effect."""


class OptionError(ValueError):
    """An option that cannot be what is meant; the message names it."""


@dataclass
class Options:
    """What is to be mounted, and how."""

    lower: list[str] = field(default_factory=list)
    """Topmost first."""
    upper: str | None = None
    work: str | None = None
    read_only: bool = False
    allow_other: bool = False
    default_permissions: bool = False
    writeback: bool = False
    volatile: bool = False
    """Nothing needs to survive a crash of the machine: fsync(2) and its like do nothing."""
    timeout: float | None = None
    """Seconds after which changes of the lower directories show; None: never."""
    squash_uid: int | None = None
    squash_gid: int | None = None
    overrides: bool = False
    """The upper keeps owners and modes in xattrs."""
    uid_map: tuple[Mapping, ...] = ()
    gid_map: tuple[Mapping, ...] = ()
    """Empty: ids are shown as they are stored."""
    unknown: list[str] = field(default_factory=list)


def parse(texts: Iterable[str]) -> Options:
    """Read options; a later one wins. Raises OptionError for what is missing or makes no sense."""
    options = Options()
    for text in texts:
        for item in split(text):
            if item:
                _take(options, item)
    if not options.lower:
        raise OptionError("there is no lowerdir: say -o lowerdir=DIR[:DIR...]")
    if (options.upper is None) != (options.work is None):
        missing = "workdir" if options.work is None else "upperdir"
        raise OptionError(f"upperdir and workdir go together: {missing} is missing")
    return options


def _take(options: Options, item: str) -> None:
    name, equals, value = item.partition("=")
    if name in VALUES and equals:
        if name == "lowerdir":
            options.lower = dirnames.directories(value)
            return
        if name in ("upperdir", "workdir"):
            setattr(options, name.removesuffix("dir"), dirnames.directory(value))
            return
        value = dirnames.unescaped(value)
        if name in ("uidmapping", "gidmapping"):
            setattr(options, name.replace("mapping", "_map"), _mapping(name, value))
        elif name == "xattr_permissions":
            options.overrides = _xattr_permissions(value)
        elif name == "timeout":
            options.timeout = _seconds(value)
        else:
            setattr(options, name.replace("_to", ""), _number(name, value))
    elif item in FLAGS:
        _flag(options, item)
    elif name not in IGNORED:
        options.unknown.append(item)


def _flag(options: Options, name: str) -> None:
    if name in ("ro", "rw"):
        options.read_only = name == "ro"
    elif name == "squash_to_root":
        options.squash_uid = options.squash_gid = 0
    elif name in ("allow_other", "default_permissions", "writeback", "volatile"):
        setattr(options, name, True)


def _number(name: str, value: str) -> int:
    if not value.isdigit() or int(value) >= 1 << 32:
        raise OptionError(f"{name}={value}: this has to be a number below 2^32")
    return int(value)


def _mapping(name: str, value: str) -> tuple[Mapping, ...]:
    """DISK:SHOWN:LENGTH[:...]; engines put a colon before the first."""
    fields = [field for field in value.split(":") if field]
    if not fields or len(fields) % 3:
        raise OptionError(f"{name}={value}: this has to be DISK:SHOWN:LENGTH, once or several times")
    numbers = [_number(name, field) for field in fields]
    return tuple(Mapping(*numbers[start : start + 3]) for start in range(0, len(numbers), 3))


def _xattr_permissions(value: str) -> bool:
    """fuse-overlayfs knows 1 as well, an xattr of its own in ``security.*``."""
    if value not in ("0", "2"):
        raise OptionError(f"xattr_permissions={value}: only 2 (user.containers.override_stat) and 0 (none) are known")
    return value == "2"


def _seconds(value: str) -> float:
    """A number of seconds, also a broken one; one of years is the same as none."""
    whole, _, part = value.partition(".")
    if not (whole + part).isdigit() or not (whole + part).isascii():
        raise OptionError(f"timeout={value}: this has to be a number of seconds, such as 1 or 0.5")
    return float(value)


def split(text: str) -> Iterator[str]:
    r"""The options of a text, as they are written.

    They end at a comma unless a backslash protects it (which another backslash before it would undo), or the value is
    in double quotes, as in ``context="a,b"``: from the equals sign to the end of the option. Elsewhere a quote is a
    character of a name.
    """
    start = 0
    for comma in _COMMA.finditer(text):
        if comma.start() >= start and not len(comma[1]) % 2 and not _in_quotes(text, start, comma.end() - 1):
            yield text[start : comma.end() - 1]
            start = comma.end()
    yield text[start:]


_COMMA = re.compile(r"(\\*),")
_QUOTED = re.compile(r'[^=,]*="(?:\\.|[^"\\])*"(?=,|$)', re.DOTALL)


def _in_quotes(text: str, start: int, position: int) -> bool:
    quoted = _QUOTED.match(text, start)
    return quoted is not None and position < quoted.end()
