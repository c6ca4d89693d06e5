"""What a container changed: its layer against its image."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
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
    opened = [os.open(upper, _DIRECTORY)]
    levels = [_compare(_Level(b"", opened[0], ROOT, False, False), tree)]
    try:
        while levels:
            found = next(levels[-1], None)
            if found is None:
                levels.pop()
                os.close(opened.pop())
            elif isinstance(found, Change):
                yield found
            else:
                opened.append(found.descriptor)
                levels.append(_compare(found, tree))
    finally:
        for descriptor in opened:
            os.close(descriptor)


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
    lower = {entry.name: entry.type for entry in tree.entries(level.node)} if level.node else {}
    if hides_all:
        gone |= lower.keys() - listing.names.keys()
    if level.moved and not hides_all:
        for name in sorted(lower.keys() - gone - listing.names.keys()):
            yield from _added(level, name, lower[name], tree)
    for name in sorted(gone | listing.names.keys()):
        path = level.path + b"/" + name
        known = name in lower and not level.moved
        if name in gone:
            if known:
                yield Change(DELETED, path)
            continue
        yield Change(CHANGED if known else ADDED, path)
        if listing.names[name] == whiteout.DT_DIR:
            covers = tree.lookup(level.node, name) if lower.get(name) == whiteout.DT_DIR else 0
            yield _enter(level, path, name, covers, name in listing.whiteouts, tree)


def _enter(level: _Level, path: bytes, name: bytes, covers: int, hidden: bool, tree: Tree) -> _Level:
    descriptor = os.open(name, _DIRECTORY, dir_fd=level.descriptor)
    redirect = whiteout.marks(descriptor).redirect
    if redirect is not None:
        return _Level(path, descriptor, _origin(redirect, level.node, tree), False, True)
    return _Level(path, descriptor, covers, hidden, level.moved)


def _origin(redirect: bytes, sibling_of: int, tree: Tree) -> int:
    """The tree's directory that a renamed one comes from, 0 where the tree does not have it."""
    node = ROOT if redirect.startswith(b"/") else sibling_of
    for name in redirect.strip(b"/").split(b"/"):
        node = tree.lookup(node, name) if node and stat.S_ISDIR(Attr.unpack(tree.attr(node)).mode) else 0
    return node


def _added(level: _Level, name: bytes, type_: int, tree: Tree) -> Iterator[Change]:
    """Everything of the tree that came along with a renamed directory."""
    waiting = [(level.path + b"/" + name, level.node, name, type_)]
    while waiting:
        path, parent, name, type_ = waiting.pop()
        yield Change(ADDED, path)
        if type_ == whiteout.DT_DIR:
            node = tree.lookup(parent, name)
            waiting += [(path + b"/" + entry.name, node, entry.name, entry.type) for entry in tree.entries(node)]
