"""Which ids of the host a container gets: user_namespaces(7), subuid(5), newuidmap(1).

The widest map available is chosen: all ids for root, the caller and the ranges of /etc/subuid and
/etc/subgid through newuidmap and newgidmap, else the caller alone as root.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from launcher.errors import UfsError

_CAP_SETGID, _CAP_SETUID = 6, 7
_HELPERS = ("newuidmap", "newgidmap")


class Range(NamedTuple):
    """`length` ids from `inside` on in the namespace are those from `outside` on in the parent namespace."""

    inside: int
    outside: int
    length: int


class IdMap(NamedTuple):
    """The maps of a user namespace. `way`: "direct" (root writes them), "helper" (newuidmap), "single"."""

    way: str
    uids: tuple[Range, ...]
    gids: tuple[Range, ...]

    @property
    def single(self) -> bool:
        """Only one id is mapped: there is no other owner or user in the container, and no setgroups(2)."""
        return self.way == "single"

    def has_uid(self, uid: int) -> bool:
        """Whether `uid` of the container is mapped."""
        return any(r.inside <= uid < r.inside + r.length for r in self.uids)

    def has_gid(self, gid: int) -> bool:
        """Whether `gid` of the container is mapped."""
        return any(r.inside <= gid < r.inside + r.length for r in self.gids)


class Choice(NamedTuple):
    """The map, and one line for the user where a wider one was within reach (None: nothing to say)."""

    map: IdMap
    notice: str | None


def choose() -> Choice:
    """The widest id map that the calling process can have."""
    uid, gid = os.geteuid(), os.getegid()
    single = IdMap("single", (Range(0, uid, 1),), (Range(0, gid, 1),))
    if uid == 0 and _may_map_all():
        every = _own("uid"), _own("gid")
        if every == (single.uids, single.gids):  # inside a container that has one id itself
            return Choice(single, None)
        return Choice(IdMap("direct", *every), None)
    uids, gids = _subordinate("/etc/subuid", uid), _subordinate("/etc/subgid", uid)
    if not uids or not gids:
        return Choice(single, None)
    missing = [name for name in _HELPERS if _program(name) is None]
    if missing:
        names = " and ".join(missing)
        return Choice(single, f"{names} not found, so only one id is mapped although /etc/subuid gives more; "
                              "install the package uidmap (shadow-utils)")  # fmt: skip
    return Choice(IdMap("helper", _stacked(uid, uids), _stacked(gid, gids)), None)


def write(idmap: IdMap, pid: int) -> None:
    """Give the user namespace of process `pid` its maps; raises `UfsError` naming what refused."""
    if idmap.way == "helper":
        _write_by_helper(idmap, pid)
        return
    try:
        if idmap.single:
            # Required before an ordinary user may write gid_map: a group that is denied something
            # could otherwise be dropped (CVE-2014-8989).
            _put(f"/proc/{pid}/setgroups", "deny")
        _put(f"/proc/{pid}/uid_map", _lines(idmap.uids))
        _put(f"/proc/{pid}/gid_map", _lines(idmap.gids))
    except OSError as error:
        raise UfsError(f"cannot map ids into a new user namespace: {error.strerror} ({error.filename})", 125) from error


def _may_map_all() -> bool:
    """Root in a container that took its capabilities away can only do what an ordinary user can."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("CapEff:"):
                held = int(line.split()[1], 16)
                return bool(held >> _CAP_SETUID & held >> _CAP_SETGID & 1)
    return False


def _own(kind: str) -> tuple[Range, ...]:
    """Every id that is mapped for this process, mapped to itself: also where root is root of a container."""
    with open(f"/proc/self/{kind}_map") as lines:
        return tuple(Range(int(inside), int(inside), int(count)) for inside, _, count in map(str.split, lines))


def _subordinate(path: str, uid: int) -> list[tuple[int, int]]:
    """(first, count) of the caller's lines in `path`, by name or by number. Both files name *users*."""
    import pwd

    try:
        owners = {str(uid), pwd.getpwuid(uid).pw_name}
    except KeyError:
        owners = {str(uid)}
    try:
        lines = open(path, errors="surrogateescape")
    except FileNotFoundError:
        return []
    found = []
    with lines:
        for line in lines:
            fields = line.strip().split(":")
            if len(fields) == 3 and fields[0] in owners and fields[1].isdecimal() and fields[2].isdecimal():
                found.append((int(fields[1]), int(fields[2])))
    return [(first, count) for first, count in found if count]


def _stacked(caller: int, ranges: list[tuple[int, int]]) -> tuple[Range, ...]:
    """The caller as 0, then the ranges one after the other from 1 on."""
    stacked, inside = [Range(0, caller, 1)], 1
    for first, count in ranges:
        stacked.append(Range(inside, first, count))
        inside += count
    return tuple(stacked)


def _program(name: str) -> str | None:
    # Ordinary users' PATH may lack the sbin directories; the helpers are set-uid, so any absolute one is fine.
    for directory in [*os.environ.get("PATH", "").split(":"), "/usr/bin", "/bin", "/usr/sbin", "/sbin"]:
        path = os.path.join(directory, name)
        if directory.startswith("/") and os.access(path, os.X_OK):
            return path
    return None


def _write_by_helper(idmap: IdMap, pid: int) -> None:
    """Both helpers at once: each is an exec of its own, and they do not wait for one another."""
    running = []
    for name, ranges in zip(_HELPERS, (idmap.uids, idmap.gids), strict=True):
        path = _program(name)
        if path is None:
            raise UfsError(f"{name} not found; install the package uidmap (shadow-utils)", 125)
        said, words = os.pipe()
        arguments = [name, str(pid)] + [str(number) for r in ranges for number in r]
        streams = [(os.POSIX_SPAWN_DUP2, words, 1), (os.POSIX_SPAWN_DUP2, words, 2)]
        running.append((path, os.posix_spawn(path, arguments, os.environ, file_actions=streams), said))
        os.close(words)
    failures = []
    for path, helper, said in running:
        with open(said, "rb") as stream:
            text = stream.read().decode(errors="replace").strip()
        status = os.waitstatus_to_exitcode(os.waitpid(helper, 0)[1])
        if status != 0:
            failures.append(f"{path} failed: {text.splitlines()[0] if text else f'status {status}'}")
    if failures:
        raise UfsError(f"{failures[0]}; check that it is set-uid root (package uidmap) and "
                       "that the ranges in /etc/subuid and /etc/subgid are valid", 125)  # fmt: skip


def _lines(ranges: tuple[Range, ...]) -> str:
    return "".join(f"{r.inside} {r.outside} {r.length}\n" for r in ranges)


def _put(path: str, text: str) -> None:
    # One write(2): the kernel takes a map in a single call only. A write names no file in its error.
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        os.close(descriptor)
