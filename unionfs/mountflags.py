"""The flags of a mount by their names in -o: what the kernel keeps for every file system (mount(2), mount(8))."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

RDONLY: Final = 1
NOSUID: Final = 2
NODEV: Final = 4
NOEXEC: Final = 8
SYNCHRONOUS: Final = 16
REMOUNT: Final = 32
DIRSYNC: Final = 128
NOSYMFOLLOW: Final = 256
NOATIME: Final = 1 << 10
NODIRATIME: Final = 1 << 11
PRIVATE: Final = 1 << 18
RELATIME: Final = 1 << 21
STRICTATIME: Final = 1 << 24
LAZYTIME: Final = 1 << 25

_ACCESS_TIMES: Final = NOATIME | RELATIME | STRICTATIME
ACCESS: Final = _ACCESS_TIMES | NODIRATIME
_BY_OTHERS: Final = NOSUID | NODEV

NAMES: Final[dict[str, tuple[int, int]]] = {
    "ro": (RDONLY, 0),
    "rw": (0, RDONLY),
    "nosuid": (NOSUID, 0),
    "suid": (0, NOSUID),
    "nodev": (NODEV, 0),
    "dev": (0, NODEV),
    "noexec": (NOEXEC, 0),
    "exec": (0, NOEXEC),
    "sync": (SYNCHRONOUS, 0),
    "async": (0, SYNCHRONOUS),
    "dirsync": (DIRSYNC, 0),
    "nosymfollow": (NOSYMFOLLOW, 0),
    "symfollow": (0, NOSYMFOLLOW),
    "noatime": (NOATIME, _ACCESS_TIMES),
    "atime": (0, NOATIME),
    "nodiratime": (NODIRATIME, 0),
    "diratime": (0, NODIRATIME),
    "relatime": (RELATIME, _ACCESS_TIMES),
    "norelatime": (0, RELATIME),
    "strictatime": (STRICTATIME, _ACCESS_TIMES),
    "nostrictatime": (0, STRICTATIME),
    "lazytime": (LAZYTIME, 0),
    "nolazytime": (0, LAZYTIME),
    "defaults": (0, RDONLY | NOSUID | NODEV | NOEXEC | SYNCHRONOUS),
    "user": (_BY_OTHERS | NOEXEC, 0),
    "users": (_BY_OTHERS | NOEXEC, 0),
    "owner": (_BY_OTHERS, 0),
    "group": (_BY_OTHERS, 0),
}
"""(bits it sets, bits it clears first). The last four let others than root mount a line of fstab(5)."""

_OF_FUSERMOUNT: Final = {
    RDONLY: "ro",
    NOSUID: "nosuid",
    NODEV: "nodev",
    NOEXEC: "noexec",
    SYNCHRONOUS: "sync",
    DIRSYNC: "dirsync",
    NOATIME: "noatime",
}
"""What every fusermount3 takes (util/fusermount.c of libfuse 3.10). It sets nosuid and nodev whatever it is told."""


class MountFlags:
    """What some options make of flags that were there before; a later option wins."""

    def __init__(self) -> None:
        self.on = self.off = 0
        self.named: set[str] = set()

    @classmethod
    def of(cls, names: Iterable[str]) -> MountFlags:
        """Those of names, other than of flags passed over: as mountinfo lists them (proc(5))."""
        flags = cls()
        for name in names:
            flags.take(name)
        return flags

    def take(self, name: str) -> bool:
        """Take an option; False where it is none of these."""
        bits = NAMES.get(name)
        if bits is None:
            return False
        on, off = bits
        self.on = self.on & ~off | on
        self.off = self.off & ~on | off
        self.named.add(name)
        return True

    def over(self, present: int) -> int:
        """The MS_ flags where `present` ones were set before."""
        return present & ~self.off | self.on

    def for_fusermount(self) -> tuple[list[str], list[str]]:
        """(names to pass to fusermount3, those that were asked for and that it has no means to set)."""
        passed = [name for bit, name in _OF_FUSERMOUNT.items() if self.on & bit]
        beyond = [
            name
            for name in sorted(self.named)
            if name in ("suid", "dev") or (NAMES[name][0] & self.on & ~sum(_OF_FUSERMOUNT) and name != "relatime")
        ]
        return passed, beyond
