"""What a rename with RENAME_WHITEOUT leaves behind: a device that shows, which the same rename cannot put there.

Before the move, the device (an empty file with an override, `unionfs.union.attributes`) and where it belongs are
written down, so that the two are one step after all: `settle` puts the device there if the name has gone, and forgets
it if it has not. It is called after the move and, for a server that was killed in between, by the next mount.

    WORK/leaving/device   the stand-in
    WORK/leaving/place    path of the old name below the upper directory; the union alone renames there
"""

from __future__ import annotations

import os

from unionfs import override, whiteout
from unionfs.override import Override
from unionfs.upper import LEAVING, Upper

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def prepare(upper: Upper, place: bytes, shown: Override) -> None:
    """Write down that the name at `place` is about to move, and what it leaves there."""
    temporary = upper.temporary()
    os.mkdir(temporary, 0o700, dir_fd=upper.work)
    try:
        record = os.open(temporary, _DIRECTORY, dir_fd=upper.work)
        try:
            _write(record, b"device", b"")
            override.write(whiteout.path(record, b"device"), shown)
            _write(record, b"place", place)
        finally:
            os.close(record)
        os.rename(temporary, LEAVING, src_dir_fd=upper.work, dst_dir_fd=upper.base)
    except BaseException:
        upper.discard_if_there(temporary)
        raise


def _write(directory: int, name: bytes, content: bytes) -> None:
    with os.fdopen(os.open(name, _NEW, 0o600, dir_fd=directory), "wb") as file:
        file.write(content)


def settle(upper: Upper) -> None:
    """Bring what was prepared to its end, if there is anything."""
    try:
        record = os.open(LEAVING, _DIRECTORY, dir_fd=upper.base)
    except FileNotFoundError:
        return
    try:
        if whiteout.exists(record, b"device"):
            _leave(upper, record)
    finally:
        os.close(record)
    temporary = upper.temporary()
    os.rename(LEAVING, temporary, src_dir_fd=upper.base, dst_dir_fd=upper.work)
    upper.discard(temporary)


def _leave(upper: Upper, record: int) -> None:
    with open(whiteout.path(record, b"place"), "rb") as file:
        *above, name = file.read().split(b"/")
    place = os.dup(upper.root)
    try:
        upper.open_up(place)
        for part in above:
            below = os.open(part, _DIRECTORY, dir_fd=place)
            os.close(place)
            place = below
            upper.open_up(place)
        if isinstance(whiteout.probe(place, name), os.stat_result):
            return  # It has not moved.
        os.rename(b"device", name, src_dir_fd=record, dst_dir_fd=place)
        upper.reveal_file(place, name)
    finally:
        os.close(place)
