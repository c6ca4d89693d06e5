"""Capabilities of the command: capabilities(7), by python-prctl.

They count inside the container's user namespace only; what the host's kernel asks for in the initial namespace
is out of reach for any of them.
"""

from __future__ import annotations

from launcher.errors import UfsError
from launcher.sandbox import syscalls

_ALL = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
_KEPT = """
CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_RAW SYS_CHROOT MKNOD AUDIT_WRITE
SETFCAP
"""

NUMBERS = {name: number for number, name in enumerate(_ALL.split())}
"""Names without CAP_ and their numbers (include/uapi/linux/capability.h)."""

DEFAULT = frozenset(NUMBERS[name] for name in _KEPT.split())
"""What Docker leaves a container."""

SYS_ADMIN = NUMBERS["SYS_ADMIN"]


def chosen(add: tuple[str, ...], drop: tuple[str, ...]) -> frozenset[int]:
    """The set for --cap-add and --cap-drop, where ALL stands for every one; drops win as with Docker.

    Each may be several with commas between them, as podman takes them.
    """
    add, drop = (tuple(name for text in texts for name in text.split(",")) for texts in (add, drop))
    kept = set(DEFAULT)
    for name in add:
        kept |= _named(name)
    if any(name.upper() in ("ALL", "CAP_ALL") for name in drop):
        kept = set().union(*(_named(name) for name in add)) if add else set()
    for name in drop:
        if name.upper() not in ("ALL", "CAP_ALL"):
            kept -= _named(name)
    return frozenset(kept)


def _named(name: str) -> set[int]:
    short = name.upper().removeprefix("CAP_")
    if short == "ALL":
        return set(NUMBERS.values())
    if short not in NUMBERS:
        raise UfsError(f"no capability named {name!r}; see capabilities(7), for example NET_RAW", 125)
    return {NUMBERS[short]}


def limit_bounding(kept: frozenset[int]) -> None:
    """Drop all others from the bounding set, also those newer than this table; needs CAP_SETPCAP."""
    import prctl  # heavy, and nothing that the launcher asks of this module needs it; `init` has imported it

    with open("/proc/sys/kernel/cap_last_cap") as last:
        highest = int(last.read())
    for number in range(highest + 1):
        if number not in kept:
            # python-prctl refuses numbers that are newer than the headers it was built with.
            drop = prctl.capbset_drop if number <= prctl.CAP_LAST_CAP else syscalls.drop_from_bounding
            drop(number)


def raise_held(number: int) -> None:
    """Make one effective that is permitted."""
    import prctl

    prctl.set_caps(((number,), prctl.CAP_EFFECTIVE, True))


def limit_held(kept: frozenset[int]) -> None:
    """Permitted and effective become `kept` (or what of it is held), inheritable and ambient become empty."""
    import prctl

    everything = prctl.ALL_CAPS
    dropped = [number for number in everything if number not in kept]
    prctl.set_caps(
        (everything, prctl.CAP_INHERITABLE, False),
        (dropped, (prctl.CAP_EFFECTIVE, prctl.CAP_PERMITTED), False),
    )
