"""When fsync(2) reaches the upper's disk, and when there is nothing for it to do."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from unionfs.fuse.messages import Messages
from unionfs.fuse.wire import Op
from unionfs.live.directories import DirectoryStack
from unionfs.open import open_union
from unionfs.tree import ROOT
from unionfs.union import Union

_IN_MEMORY = ("tmpfs", "ramfs")


@pytest.fixture(params=["as asked", "volatile"])
def union(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Union]:
    for name in ("lower", "upper", "work"):
        (tmp_path / name).mkdir()
    tree = DirectoryStack([os.fsencode(tmp_path / "lower")])
    union = open_union(tree, str(tmp_path / "upper"), str(tmp_path / "work"), volatile=request.param == "volatile")
    yield union
    union.close()


def test_a_file_is_synced_where_it_can_be_lost(union: Union, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    kind = subprocess.run(["stat", "-f", "-c", "%T", tmp_path], stdout=subprocess.PIPE, text=True, check=True).stdout
    expected = kind.strip() not in _IN_MEMORY and "volatile" not in request.node.name
    node = int.from_bytes(union.mknod(ROOT, b"file", stat.S_IFREG | 0o644, 0, 0, 0)[:8], "little")
    for later in (union.fsync(node, datasync=False), union.fsync(ROOT, datasync=True), union.syncfs()):
        assert (later is not None) == expected
        if later is not None:
            later.work()
    known = Messages(union, False, None, sends=lambda run, size: False).table
    assert all((op in known) == expected for op in (Op.FSYNC, Op.FSYNCDIR, Op.SYNCFS))


@pytest.mark.only_root
def test_an_upper_in_memory_has_nothing_to_sync(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True)
    try:
        for name in ("lower", "upper", "work"):
            (tmp_path / name).mkdir()
        tree = DirectoryStack([os.fsencode(tmp_path / "lower")])
        union = open_union(tree, str(tmp_path / "upper"), str(tmp_path / "work"))
        assert not union.durable
        union.close()
    finally:
        subprocess.run(["umount", tmp_path], check=True)
