"""The options of an overlay mount program, as container engines and mount(8) pass them.

One string or several, comma-separated, with ``\\,`` for a comma that belongs to a value and double quotes
around values that hold commas. In lowerdir, ``:`` parts directories; `unionfs.dirnames` says how names are read.
Empty options are passed over. What is unknown is named in `unknown` for the caller to warn about.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from unionfs import dirnames
from unionfs.mountflags import RDONLY, MountFlags
from unionfs.ownership import Mapping

FLAGS = frozenset(
    {"allow_other", "allow_root", "default_permissions", "noacl", "noxattrs", "private", "remount", "squash_to_root"}
    | {"static_nlink", "volatile", "writeback"}
)
VALUES = frozenset(
    {"lowerdir", "upperdir", "workdir", "squash_to_uid", "squash_to_gid", "timeout", "fsname", "subtype"}
    | {"uidmapping", "gidmapping", "xattr_permissions", "redirect_dir"}
    | {"fsync", "noxattrs", "sync", "writeback"}  # 0 or 1, as fuse-overlayfs has them
)
_OF_THREADS = "libfuse's loop has threads to set up; here one answers, and workers wait for disks"
_OF_FSTAB = "mount(8) reads it in fstab(5)"
_BY_ITSELF = "the kernel writes it in /proc/mounts, and mount(8) gives it back with remount"
WITHOUT_MEANING = {
    "auto": _OF_FSTAB,
    "noauto": _OF_FSTAB,
    "nofail": _OF_FSTAB,
    "nouser": _OF_FSTAB,
    "_netdev": _OF_FSTAB,
    "comment": _OF_FSTAB,
    "clone_fd": _OF_THREADS,
    "max_idle_threads": _OF_THREADS,
    "max_threads": _OF_THREADS,
    "threaded": _OF_THREADS,
    "fast_ino": "numbers of inodes are the host's anyway, and cost nothing",
    "nonempty": "any directory may be mounted on, as with mount(2)",
    "iversion": "the kernel takes it from every FUSE mount (fuse_fill_super_common())",
    "noiversion": "as it is anyway, see iversion",
    "nomand": "as it is anyway: no kernel since 5.15 has mandatory locks",
    "loud": "nothing is printed in the kernel's log either way",
    "silent": "nothing is printed in the kernel's log either way",
    "user_id": _BY_ITSELF,
    "group_id": _BY_ITSELF,
    "max_read": _BY_ITSELF,
}
"""Why there is nothing that it could have an effect on."""

IGNORED = frozenset(WITHOUT_MEANING)
"""What is accepted and has no effect."""

_LABELS = ("context", "fscontext", "defcontext", "rootcontext")
_SELINUX = "/sys/fs/selinux/enforce"


class OptionError(ValueError):
    """An option that cannot be what is meant; the message names it."""


@dataclass
class Options:
    """What is to be mounted, and how."""

    lower: list[str] = field(default_factory=list)
    """Topmost first."""
    upper: str | None = None
    work: str | None = None
    flags: MountFlags = field(default_factory=MountFlags)
    remount: bool = False
    """Change the flags of a running mount, and nothing else."""
    source: str = ""
    subtype: str = ""
    """What /proc/mounts says: the device, and the type behind "fuse."; empty for the usual."""
    private: bool = False
    """No mount or unmount on it is seen in other mount namespaces, nor theirs here (mount_namespaces(7))."""
    allow_other: bool = False
    allow_root: bool = False
    default_permissions: bool = False
    writeback: bool = False
    volatile: bool = False
    """Nothing needs to survive a crash of the machine: fsync(2) and its like do nothing."""
    xattrs: bool = True
    acls: bool = True
    redirects: bool = True
    """Directories of the lower side are renamed by a redirect; else that is EXDEV."""
    static_nlink: bool = False
    """Directories have one link."""
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
    """What has no effect and is warned about."""

    @property
    def read_only(self) -> bool:
        """Whether nothing can be changed: asked for, or for want of an upper."""
        return bool(self.flags.on & RDONLY) or self.upper is None

    @property
    def squash(self) -> tuple[int, int] | None:
        """Whom everything belongs to; None for nobody in particular."""
        if self.squash_uid is None and self.squash_gid is None:
            return None
        return self.squash_uid or 0, self.squash_gid or 0


def parse(texts: Iterable[str]) -> Options:
    """Read options; a later one wins. Raises OptionError for what is missing or makes no sense."""
    options = Options()
    for text in texts:
        for item in split(text):
            if item:
                _take(options, item)
    if options.remount:
        return options
    if not options.lower:
        raise OptionError("there is no lowerdir: say -o lowerdir=DIR[:DIR...]")
    if (options.upper is None) != (options.work is None):
        missing = "workdir" if options.work is None else "upperdir"
        raise OptionError(f"upperdir and workdir go together: {missing} is missing")
    return options


def _take(options: Options, item: str) -> None:
    name, equals, value = item.partition("=")
    if name in VALUES and equals:
        _take_value(options, name, value)
    elif options.flags.take(item):
        pass
    elif item == "squash_to_root":  # counts less than squash_to_uid and squash_to_gid
        options.squash_uid, options.squash_gid = options.squash_uid or 0, options.squash_gid or 0
    elif item in FLAGS:
        setattr(options, *_FLAG_FIELDS[item])
    elif name in _LABELS:
        if os.path.exists(_SELINUX):
            options.unknown.append(item)
    elif name not in IGNORED and not name.lower().startswith("x-"):  # of who wrote it, as in fstab(5)
        options.unknown.append(item)


def _take_value(options: Options, name: str, value: str) -> None:
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
    elif name == "redirect_dir":
        options.redirects = _redirects(value)
    elif name == "fsname":
        options.source = value
    elif name == "subtype":
        options.subtype = value
    elif name in _SWITCHES:
        field, opposite = _SWITCHES[name]
        setattr(options, field, _switch(name, value) != opposite)
    else:
        setattr(options, name.replace("_to", ""), _number(name, value))


_SWITCHES = {
    "fsync": ("volatile", True),
    "sync": ("volatile", True),
    "noxattrs": ("xattrs", True),
    "writeback": ("writeback", False),
}
"""Options that are 0 or 1: the field, and whether 1 turns it off."""

_FLAG_FIELDS = {name: (name, True) for name in FLAGS} | {"noacl": ("acls", False), "noxattrs": ("xattrs", False)}
"""Options that are there or not: the field, and its value then."""


def _switch(name: str, value: str) -> bool:
    if value not in ("0", "1"):
        raise OptionError(f"{name}={value}: this has to be 0 or 1")
    return value == "1"


def _redirects(value: str) -> bool:
    """Whether redirects are written, by the words of the kernel's overlayfs; those that are there are followed."""
    if value not in ("on", "off", "follow"):
        raise OptionError(f"redirect_dir={value}: only on, off and follow are known")
    return value == "on"


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
