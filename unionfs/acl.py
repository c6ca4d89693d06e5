"""The ids in POSIX ACLs (acl(5)), which follow the owners: shown and stored as `unionfs.ownership` says.

An ACL is an xattr: ``struct posix_acl_xattr_header`` with a version, then entries of tag, permissions and id
(include/uapi/linux/posix_acl_xattr.h). The kernel refuses access where one has an id that is not mapped in the mount's
user namespace (posix_acl_from_xattr(), fs/posix_acl.c).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from unionfs.ownership import Ownership

ACCESS: Final = b"system.posix_acl_access"
DEFAULT: Final = b"system.posix_acl_default"
NAMES: Final = (ACCESS, DEFAULT)

_HEADER = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
_USER: Final = 0x02
_GROUP: Final = 0x08

_Ids = Callable[[int, int], tuple[int, int] | None]


def shown(value: bytes, owners: Ownership) -> bytes:
    """A stored ACL as the mount shows it."""
    return value if owners.exact else _with_ids(value, owners.show)


def stored(value: bytes, owners: Ownership) -> bytes:
    """A given ACL as the upper keeps it. Raises OSError EINVAL for an id that cannot be stored."""
    return value if owners.exact else _with_ids(value, owners.store)


def _with_ids(value: bytes, ids: _Ids) -> bytes:
    """`value` with other ids of named users and groups; as it is where it is malformed, which the kernel finds."""
    body = memoryview(value)[_HEADER.size :]
    if len(value) < _HEADER.size or len(body) % _ENTRY.size:
        return value
    return value[: _HEADER.size] + b"".join(_ENTRY.pack(*_entry(ids, *entry)) for entry in _ENTRY.iter_unpack(body))


def _entry(ids: _Ids, tag: int, permissions: int, id: int) -> tuple[int, int, int]:
    if tag == _USER:
        id = (ids(id, 0) or (id, 0))[0]
    elif tag == _GROUP:
        id = (ids(0, id) or (0, id))[1]
    return tag, permissions, id
