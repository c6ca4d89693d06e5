"""name_to_handle_at(2) and open_by_handle_at(2): a handle leads to its file or nowhere, never to another one."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

import pytest

from tests.support.systems import SYSTEMS, System, opened, raises, system

__all__ = ["system"]

_AT_FDCWD = -100
_MOST = 128
_libc = ctypes.CDLL(None, use_errno=True)

pytestmark = [
    pytest.mark.only_root,
    pytest.mark.parametrize("system", [name for name in SYSTEMS if name != "plain"], indirect=True),
]


def handle(path: Path) -> bytes:
    """``struct file_handle`` of a file."""
    buffer = ctypes.create_string_buffer(_MOST.to_bytes(4, "little"), 8 + _MOST)
    mount = ctypes.c_int()
    if _libc.name_to_handle_at(_AT_FDCWD, os.fsencode(path), buffer, ctypes.byref(mount), 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    return buffer.raw


def content(root: Path, known: bytes) -> bytes:
    with opened(root, os.O_RDONLY | os.O_DIRECTORY) as mount:
        fd = _libc.open_by_handle_at(mount, ctypes.create_string_buffer(known, len(known)), os.O_RDONLY)
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    with os.fdopen(fd, "rb") as file:
        return file.read()


def test_a_handle_leads_to_its_file(system: System) -> None:
    (system.root / "n").write_text("new")
    for name in ("d/f", "m/g", "n", "big"):
        assert content(system.root, handle(system.root / name)) == (system.root / name).read_bytes()


def test_a_handle_of_another_mount_leads_nowhere_else(system: System) -> None:
    root = system.root
    known = []
    for number in range(5):
        (root / f"n{number}").write_text("before")
        known.append(handle(root / f"n{number}"))
    system.remount()
    for number in range(20):
        (root / f"o{number}").write_text("after")
    with opened(root / "o0"):
        for each in known:
            with raises(errno.ESTALE):
                content(root, each)
