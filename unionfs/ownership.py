"""Who owns what: how owners of the tree and of the upper are shown, and what is stored for a new owner.

The server answers with user ids of the user namespace that /dev/fuse was opened in, and the kernel makes an
inode with an id that has no mapping there unusable (fuse_iget() and make_kuid(9)). So every id that is shown
has to be one that is mapped.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple, Protocol

_IDS = struct.Struct("<II")
_UID_OFFSET = 68  # of uid in struct fuse_attr; gid follows

OVERFLOW_ID = 65534


class Ownership(Protocol):
    """How owners are shown and stored."""

    exact: bool
    """Attributes of the tree are shown as they are, so ready-made replies may be used."""

    def show(self, uid: int, gid: int) -> tuple[int, int]:
        """The owner that the mount shows for a stored one."""

    def store(self, uid: int, gid: int) -> tuple[int, int] | None:
        """The owner to give to a file of the upper; None where it is left as the server makes it."""

    def store_new(self, uid: int, gid: int) -> tuple[int, int] | None:
        """The same for what a process with these ids makes, which has to belong to somebody."""

    def store_copied(self, uid: int, gid: int) -> tuple[int, int] | None:
        """The same for a copy of a file that has these ids on disk or in its image."""


class Real:
    """Owners as they are."""

    exact = True

    def show(self, uid: int, gid: int) -> tuple[int, int]:
        return uid, gid

    def store(self, uid: int, gid: int) -> tuple[int, int] | None:
        return uid, gid

    store_new = store_copied = store


class Mapped:
    """Owners as they are where this user namespace maps them, the overflow id elsewhere (user_namespaces(7))."""

    exact = False

    def __init__(self, uids: list[range], gids: list[range]) -> None:
        self._uids, self._gids = uids, gids

    def show(self, uid: int, gid: int) -> tuple[int, int]:
        return _mapped(uid, self._uids), _mapped(gid, self._gids)

    def store(self, uid: int, gid: int) -> tuple[int, int] | None:
        return uid, gid

    store_new = store
    store_copied = show


class Squash:
    """Everything belongs to one owner: for a namespace with one mapped id, and squash_to_uid/gid."""

    exact = False

    def __init__(self, uid: int, gid: int) -> None:
        self._owner = uid, gid

    def show(self, uid: int, gid: int) -> tuple[int, int]:
        return self._owner

    def store(self, uid: int, gid: int) -> tuple[int, int] | None:
        return None

    store_new = store_copied = store


class Mapping(NamedTuple):
    """`length` ids: those from `stored` on, as files have them, are shown from `shown` on.

    In the order of the fields of uidmapping= (find_mapping() of fuse-overlayfs): what the disk has comes first.
    """

    stored: int
    shown: int
    length: int


class Translated:
    """Stored ids are shown as others: uidmapping and gidmapping, as fuse-overlayfs has them.

    What no range covers, or is shown as an id without a mapping in this user namespace, is shown as the overflow id.
    An id that no range shows cannot be given to a file (EINVAL). Where one kind has no ranges its ids are as they are.
    """

    exact = False

    def __init__(self, uids: Sequence[Mapping], gids: Sequence[Mapping]) -> None:
        self._uids, self._gids = uids, gids
        self._here = Mapped(read_map("/proc/self/uid_map"), read_map("/proc/self/gid_map"))

    def show(self, uid: int, gid: int) -> tuple[int, int]:
        return self._here.show(_translated(uid, self._uids), _translated(gid, self._gids))

    def store(self, uid: int, gid: int) -> tuple[int, int] | None:
        return _stored(uid, self._uids), _stored(gid, self._gids)

    def store_new(self, uid: int, gid: int) -> tuple[int, int] | None:
        """As the overflow id where no range shows the caller's: an engine's own root makes names in every mount."""
        return self._here.show(*(_stored_or_overflow(*of) for of in ((uid, self._uids), (gid, self._gids))))

    def store_copied(self, uid: int, gid: int) -> tuple[int, int] | None:
        return self._here.show(uid, gid)


def _translated(number: int, ranges: Sequence[Mapping]) -> int:
    if not ranges:
        return number
    for stored, shown, length in ranges:
        if stored <= number < stored + length:
            return shown + number - stored
    return OVERFLOW_ID


def _stored(number: int, ranges: Sequence[Mapping]) -> int:
    if not ranges or number < 0:  # -1 leaves the owner alone (chown(2))
        return number
    for stored, shown, length in ranges:
        if shown <= number < shown + length:
            return stored + number - shown
    raise OSError(errno.EINVAL, f"no mapping for the id {number}")


def _stored_or_overflow(number: int, ranges: Sequence[Mapping]) -> int:
    try:
        return _stored(number, ranges)
    except OSError:
        return OVERFLOW_ID


def _mapped(number: int, ranges: list[range]) -> int:
    for ids in ranges:
        if number in ids:
            return number
    return OVERFLOW_ID if any(OVERFLOW_ID in ids for ids in ranges) else ranges[0].start


def read_map(path: str) -> list[range]:
    """The ids that have a mapping in this process's user namespace, from /proc/self/{uid,gid}_map."""
    with open(path) as lines:
        rows = [list(map(int, line.split())) for line in lines]
    return [range(start, start + length) for start, _, length in rows]


@cache
def in_initial_namespace() -> bool:
    """Whether this process is in the initial user namespace, where alone some capabilities count (capable())."""
    return read_map("/proc/self/uid_map") == [range((1 << 32) - 1)]


def of_this_namespace(max_uid: int, max_gid: int) -> Ownership:
    """Real owners if all ids up to the given ones are mapped here, else `Mapped`."""
    uids, gids = read_map("/proc/self/uid_map"), read_map("/proc/self/gid_map")
    if _covers(uids, max_uid) and _covers(gids, max_gid):
        return Real()
    return Mapped(uids, gids)


def _covers(ranges: list[range], most: int) -> bool:
    reached = 0
    for ids in sorted(ranges, key=lambda ids: ids.start):
        if ids.start > reached:
            break
        reached = max(reached, ids.stop)
    return most < reached


def shown(attr: bytes | memoryview, owners: Ownership) -> bytes | memoryview:
    """A packed ``struct fuse_attr`` with its owner as `owners` shows it."""
    if owners.exact:
        return attr
    uid, gid = owners.show(*_IDS.unpack_from(attr, _UID_OFFSET))
    return bytes(attr[:_UID_OFFSET]) + _IDS.pack(uid, gid) + bytes(attr[_UID_OFFSET + _IDS.size :])
