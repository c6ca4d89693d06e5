"""Who the command runs as: an image's User or -u, looked up in the container's own /etc/passwd and /etc/group."""

from __future__ import annotations

import os
from typing import NamedTuple

from launcher.errors import UfsError
from launcher.sandbox import paths, syscalls
from launcher.sandbox.idmap import IdMap


class User(NamedTuple):
    """Numeric ids of the container, and the home directory for HOME."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def resolve(text: str, passwd: str, group: str) -> User:
    """`name`, `uid`, `name:group`, `uid:gid` or mixed. `passwd`, `group`: the files' texts.

    A number need not be listed; then its group is 0 and its home /. Without an explicit group the user's
    supplementary groups apply, with one they do not (both as Docker does). A user of no name is root, a group none.
    """
    wanted, _, wanted_group = text.partition(":")
    wanted = wanted or "0"
    entry = _entry(passwd, wanted, 7)
    if entry is None and not _is_id(wanted):
        raise UfsError(f"no user {wanted!r} in the image's /etc/passwd; give a numeric id or add the user", 125)
    name = entry[0] if entry else None
    uid = int(entry[2]) if entry else int(wanted)
    gid = int(entry[3]) if entry else 0
    home = (entry[5] if entry else "") or "/"
    if wanted_group:
        return User(uid, _group(wanted_group, group), (), home)
    return User(uid, gid, _supplementary(name, gid, group), home)


def enter_single(user: User) -> None:
    """Where one id is mapped, as 0: a nested namespace in which the same id is called what the user is called.

    Every file is then shown as the user's own, which is what the host's kernel enforces anyway. To be done before
    capabilities are limited: a new user namespace begins with all of them.
    """
    syscalls.unshare(syscalls.CLONE_NEWUSER)
    for name, number in (("uid", user.uid), ("gid", user.gid)):
        descriptor = os.open(f"/proc/self/{name}_map", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, f"{number} 0 1".encode())
        finally:
            os.close(descriptor)


def become(user: User, ids: IdMap) -> None:
    """Take the user's ids. Permitted and effective capabilities go with a change away from root (the kernel).

    With a single mapped id there are no other groups to take and setgroups(2) is denied in the namespace
    (user_namespaces(7)), so what the caller's groups grant cannot be given up either: they stay.
    """
    if not ids.single:
        for uid, gid in [(user.uid, user.gid)] + [(0, extra) for extra in user.groups]:
            if not ids.has_uid(uid) or not ids.has_gid(gid):
                raise UfsError(f"id {uid}:{gid} is not mapped here; give this account more ids in /etc/subuid and "
                               "/etc/subgid (usermod --add-subuids, --add-subgids)", 125)  # fmt: skip
        os.setgroups(list(user.groups))
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)


def from_container(text: str) -> User:
    """`resolve` with the files of the root that this process is in."""
    return resolve(text, paths.read_file("/etc/passwd"), paths.read_file("/etc/group"))


def _entry(table: str, wanted: str, fields: int) -> list[str] | None:
    """The first well-formed line whose name, else whose number (third field), is `wanted`.

    The table may have a hundred thousand lines: only those that may be the one are taken apart.
    """
    lines = table.splitlines()
    for line in lines:
        if line.startswith(wanted) and (entry := _fields(line, fields)) and entry[0] == wanted:
            return entry
    if _is_id(wanted):
        number = int(wanted)
        for line in lines:
            if (entry := _fields(line, fields)) and int(entry[2]) == number:
                return entry
    return None


def _fields(line: str, count: int) -> list[str] | None:
    """The fields of a well-formed line."""
    entry = line.split(":")
    if len(entry) < count or not _is_id(entry[2]) or (count == 7 and not _is_id(entry[3])):
        return None
    return entry


def _group(wanted: str, group: str) -> int:
    entry = _entry(group, wanted, 4)
    if entry is not None:
        return int(entry[2])
    if not _is_id(wanted):
        raise UfsError(f"no group {wanted!r} in the image's /etc/group; give a numeric id or add the group", 125)
    return int(wanted)


def _supplementary(name: str | None, gid: int, group: str) -> tuple[int, ...]:
    if name is None:
        return ()
    found = {gid: None}
    for line in group.splitlines():
        if name in line and (entry := _fields(line, 4)) and name in entry[3].split(","):
            found[int(entry[2])] = None
    return tuple(found)


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and int(text) < 2**32 - 1
