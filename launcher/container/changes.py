"""What a container changed: its layer against its image."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import NamedTuple

from unionfs import whiteout
from unionfs.fuse.wire import Attr
from unionfs.tree import ROOT, Tree

ADDED, CHANGED, DELETED = "A", "C", "D"

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Change(NamedTuple):
    """One changed name: `kind` is A, C or D, `path` absolute in the container."""

    kind: str
    path: bytes


class _Level(NamedTuple):
    """A directory of the upper: its path in the container, its descriptor, the tree's directory that it covers
    (0: none), whether it hides that one's names, and whether all of it counts as added (it was moved here)."""

    path: bytes
    descriptor: int
    node: int
    covered: bool
    moved: bool


def changes(upper: str, tree: Tree) -> Iterator[Change]:
    """Compare an upper directory with the tree below it, parents before what is in them.

    A directory that is in the upper is changed even if only something in it is (as Docker shows it); one that was
    renamed is added with all it holds, and deleted where it was.
    """
    with ExitStack() as stack:
        root = os.open(upper, _DIRECTORY)
        stack.callback(os.close, root)
        levels = [iter(_compare(_Level(b"", root, ROOT, False, False), tree))]
        opened: list[int] = []
        stack.callback(lambda: [os.close(descriptor) for descriptor in opened])
        while levels:
            found = next(levels[-1], None)
            if found is None:
                levels.pop()
                if opened:
                    os.close(opened.pop())
            elif isinstance(found, Change):
                yield found
            else:
                opened.append(found.descriptor)
                levels.append(iter(_compare(found, tree)))


def without_mount_points(found: Iterable[Change], created: Iterable[str]) -> Iterator[Change]:
    """Leave out the empty names that were made in the layer as places to mount on, and nothing else."""
    ours = {os.fsencode(path) for path in created}
    every = list(found)
    filled = {parent for change in every if change.path not in ours for parent in _parents(change.path)}
    for change in every:
        if change.kind != ADDED or change.path not in ours or change.path in filled:
            yield change


def _parents(path: bytes) -> Iterator[bytes]:
    while path:
        path = path.rpartition(b"/")[0]
        yield path


def _compare(level: _Level, tree: Tree) -> Iterator[Change | _Level]:
    """One directory: what changed in it, and a `_Level` for each directory to go into."""
    marks = whiteout.marks(level.descriptor)
    listing = whiteout.scan(level.descriptor, xwhiteouts=marks.xwhiteouts)
    hides_all = level.covered or marks.opaque or listing.opaque
    gone = set(listing.whiteouts - listing.names.keys())
    lower = {entry.name: entry.node for entry in tree.entries(level.node)} if level.node else {}
    if hides_all:
        gone |= lower.keys() - listing.names.keys()
    if level.moved and not hides_all:
        for name in sorted(lower.keys() - gone - listing.names.keys()):
            yield from _added(level.path + b"/" + name, lower[name], tree)
    for name in sorted(gone | listing.names.keys()):
        path = level.path + b"/" + name
        node = lower.get(name, 0)
        if name in gone:
            if node and not level.moved:
                yield Change(DELETED, path)
            continue
        yield Change(CHANGED if node and not level.moved else ADDED, path)
        if listing.names[name] == whiteout.DT_DIR:
            yield _enter(level, path, name, node, name in listing.whiteouts, tree)


def _enter(level: _Level, path: bytes, name: bytes, node: int, hidden: bool, tree: Tree) -> _Level:
    descriptor = os.open(name, _DIRECTORY, dir_fd=level.descriptor)
    redirect = whiteout.marks(descriptor).redirect
    if redirect is not None:
        return _Level(path, descriptor, _origin(redirect, level.node, tree), False, True)
    covers = node if node and _is_directory(node, tree) else 0
    return _Level(path, descriptor, covers, hidden, level.moved)


def _origin(redirect: bytes, sibling_of: int, tree: Tree) -> int:
    """The tree's directory that a renamed one comes from, 0 where the tree does not have it."""
    node = ROOT if redirect.startswith(b"/") else sibling_of
    for name in redirect.strip(b"/").split(b"/"):
        node = tree.lookup(node, name) if node and _is_directory(node, tree) else 0
    return node


def _added(path: bytes, node: int, tree: Tree) -> Iterator[Change]:
    """Everything of the tree that came along with a renamed directory."""
    waiting = [(path, node)]
    while waiting:
        path, node = waiting.pop()
        yield Change(ADDED, path)
        if _is_directory(node, tree):
            waiting += [(path + b"/" + entry.name, entry.node) for entry in tree.entries(node)]


def _is_directory(node: int, tree: Tree) -> bool:
    return stat.S_ISDIR(Attr.unpack(tree.attr(node)).mode)
