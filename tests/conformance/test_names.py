"""rename(2) of every kind of file onto every kind, and names of any bytes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.support.systems import System, raises

KINDS = {
    "file": ("d/f", "big"),
    "link": ("s", "d/l"),
    "fifo": ("p", "q2"),
    "dir": ("d/e", "m"),
    "empty": ("empty", "e2"),
}


@pytest.mark.parametrize("onto", KINDS)
@pytest.mark.parametrize("kind", ["file", "link", "fifo", "dir"])
def test_renaming_every_kind_onto_every_kind(system: System, kind: str, onto: str) -> None:
    root = system.root
    os.mkfifo(root / "q2")
    (root / "e2").mkdir()
    source, target = root / KINDS[kind][0], root / KINDS[onto][1]
    before = source.lstat()
    if kind != "dir" and onto in ("dir", "empty"):
        code = errno.EISDIR
    elif kind == "dir" and onto != "empty":
        code = errno.ENOTEMPTY if onto == "dir" else errno.ENOTDIR
    else:
        code = 0
    if code:
        with raises(code):
            source.rename(target)
    else:
        source.rename(target)
        assert not os.path.lexists(source)
    system.remount()
    after = (source if code else target).lstat()
    assert (after.st_mode, after.st_size) == (before.st_mode, before.st_size)


def test_any_byte_in_a_name(system: System) -> None:
    base = os.fsencode(system.root / "d")
    names = {bytes([byte]) * 2 for byte in range(1, 256) if byte not in b"/."}
    for name in names:
        Path(os.fsdecode(os.path.join(base, name))).touch()
    system.remount()
    assert names <= set(os.listdir(base))
    for name in names:
        os.rename(os.path.join(base, name), os.path.join(base, name + b"!"))
    assert {name + b"!" for name in names} <= set(os.listdir(base))
    assert not names & set(os.listdir(base))
