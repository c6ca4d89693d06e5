"""When fsync(2) reaches the upper's disk, and when there is nothing for it to do."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from unionfs.features import Features
from unionfs.fuse.messages import Messages
from unionfs.fuse.wire import Fattr, Op
from unionfs.live.directories import DirectoryStack
from unionfs.open import open_union
from unionfs.tree import ROOT
from unionfs.union import SetAttr, Union

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


@pytest.mark.parametrize("features", [Features(), Features(sync_names=True), Features(sync=True, sync_names=True)])
def test_sync_and_dirsync_bring_each_change_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, features: Features
) -> None:
    for name in ("lower/d", "upper", "work"):
        (tmp_path / name).mkdir(parents=True)
    tree = DirectoryStack([os.fsencode(tmp_path / "lower")])
    union = open_union(tree, str(tmp_path / "upper"), str(tmp_path / "work"), features=features)
    union.durable = True  # also where /tmp is a tmpfs: which calls are made is the question
    synced: list[int] = []
    really = os.fsync
    monkeypatch.setattr("os.fsync", lambda fd: (synced.append(os.fstat(fd).st_ino), really(fd)))
    d = node_of(union.lookup(ROOT, b"d"))
    file = node_of(union.mknod(d, b"file", stat.S_IFREG | 0o644, 0, 0, 0))
    upper = (tmp_path / "upper").stat().st_ino
    below = (tmp_path / "upper/d").stat().st_ino
    names: list[tuple[Callable[[], object], set[int]]] = [
        (lambda: union.mkdir(d, b"made", 0o755, 0, 0), {below}),
        (lambda: union.symlink(d, b"link", b"to", 0, 0), {below}),
        (lambda: union.link(file, ROOT, b"linked"), {upper}),
        (lambda: union.rename(d, b"file", ROOT, b"moved"), {upper, below}),
        (lambda: union.unlink(ROOT, b"linked"), {upper}),
        (lambda: union.rmdir(d, b"made"), {below}),
    ]
    attributes: list[Callable[[], object]] = [
        lambda: union.setattr(file, SetAttr(Fattr.MODE, 0o600)),
        lambda: union.setxattr(file, b"user.x", b"y", 0),
        lambda: union.removexattr(file, b"user.x"),
    ]
    assert set(synced) == ({below} if features.sync_names else set())
    for change, directories in names:
        synced.clear()
        change()
        assert set(synced) == (directories if features.sync_names else set())
    own = (tmp_path / "upper/moved").stat().st_ino
    for change in attributes:
        synced.clear()
        change()
        assert synced == ([own] if features.sync else [])
    union.close()


def node_of(entry: bytes | memoryview) -> int:
    return int.from_bytes(entry[:8], "little")
