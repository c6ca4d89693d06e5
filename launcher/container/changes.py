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
    """One changed name: `kind` is A, C or D, `path` absolute in the container.

    `only_below`: a directory with the mode, owner and time of the tree's, which is there for what is in it alone.
    """

    kind: str
    path: bytes
    only_below: bool = False


class _Level(NamedTuple):
    """A directory of the upper: its path in the container, whether the image has that name, its descriptor, the
    tree's directory that it covers (0: none), whether it hides that one's names, whether all of it counts as added (it
    was moved here), and whether owners can be compared."""

    path: bytes
    known: bool
    descriptor: int
    node: int
    covered: bool
    moved: bool
    owners: bool


def changes(upper: str, tree: Tree, *, owners: bool = True) -> Iterator[Change]:
    """Compare an upper directory with the tree below it, parents before what is in them.

    `owners` says whether the upper has the owners that programs see, and not one for everything.

    A directory that is in the upper is changed even if only something in it is (as Docker shows it); one that was
    renamed is added with all it holds, and deleted where it was.
    """
    opened = [os.open(upper, _DIRECTORY)]
    levels = [_compare(_Level(b"", True, opened[0], ROOT, False, False, owners), tree)]
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
                yield Change(
                    CHANGED if found.known else ADDED, found.path, found.known and _as_in_the_tree(found, tree)
                )
    finally:
        for descriptor in opened:
            os.close(descriptor)


def without_mount_points(found: Iterable[Change], made: Iterable[str]) -> list[Change]:
    """Leave out the places `made` in the layer to mount on, the directories that are there for them alone, and
    nothing else.
    """
    ours = {os.fsencode(path) for path in made}
    above = {parent for path in ours for parent in _parents(path)}
    needed: set[bytes] = set()
    shown = []
    # From the end on, for there what is in a directory comes before it.
    for change in reversed(list(found)):
        idle = change.path in ours or (change.only_below and change.path in above)
        if change.path in needed or not idle:
            needed.update(_parents(change.path))
            shown.append(change)
    return shown[::-1]


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
    all_of_it = level.node if hides_all or level.moved else 0
    # All names that the tree has here are asked for only where all of them count: cost is by what changed.
    lower = {entry.name: entry.type for entry in tree.entries(all_of_it)} if all_of_it else {}
    if hides_all:
        gone |= lower.keys() - listing.names.keys()
    if level.moved and not hides_all:
        for name in sorted(lower.keys() - gone - listing.names.keys()):
            yield from _added(level, name, lower[name], tree)
    for name in sorted(gone | listing.names.keys()):
        path = level.path + b"/" + whiteout.shown(name)
        below = tree.lookup(level.node, name) if level.node else 0
        known = below != 0 and not level.moved
        if name in gone:
            if known:
                yield Change(DELETED, path)
            continue
        if listing.names[name] != whiteout.DT_DIR:
            yield Change(CHANGED if known else ADDED, path)
            continue
        covers = below if below and stat.S_ISDIR(Attr.unpack(tree.attr(below)).mode) else 0
        yield _enter(level, path, known, covers, name in listing.whiteouts, tree)


def _enter(level: _Level, path: bytes, known: bool, covers: int, hidden: bool, tree: Tree) -> _Level:
    descriptor = os.open(whiteout.stored(path.rpartition(b"/")[2]), _DIRECTORY, dir_fd=level.descriptor)
    redirect = whiteout.marks(descriptor).redirect
    if redirect is not None:
        return _Level(path, known, descriptor, _origin(redirect, level.node, tree), False, True, level.owners)
    return _Level(path, known, descriptor, covers, hidden, level.moved, level.owners)


def _as_in_the_tree(level: _Level, tree: Tree) -> bool:
    """Whether a directory is what its copy-up made it: a whole copy but for what changed in it."""
    if not level.node or level.covered or level.moved:
        return False
    upper, lower = os.fstat(level.descriptor), Attr.unpack(tree.attr(level.node))
    if level.owners and (upper.st_uid, upper.st_gid) != (lower.uid, lower.gid):
        return False
    return (upper.st_mode, upper.st_mtime_ns) == (lower.mode, lower.mtime * 10**9 + lower.mtimensec)


def _origin(redirect: bytes, sibling_of: int, tree: Tree) -> int:
    """The tree's directory that a renamed one comes from, 0 where the tree does not have it."""
    node = ROOT if redirect.startswith(b"/") else sibling_of
    for name in redirect.strip(b"/").split(b"/"):
        node = tree.lookup(node, name) if node and stat.S_ISDIR(Attr.unpack(tree.attr(node)).mode) else 0
    return node


def _added(level: _Level, name: bytes, type_: int, tree: Tree) -> Iterator[Change]:
    """Everything of the tree that came along with a renamed directory."""
    waiting = [(level.path + b"/" + whiteout.shown(name), level.node, name, type_)]
    while waiting:
        path, parent, name, type_ = waiting.pop()
        yield Change(ADDED, path)
        if type_ == whiteout.DT_DIR:
            node = tree.lookup(parent, name)
            waiting += [
                (path + b"/" + whiteout.shown(entry.name), node, entry.name, entry.type) for entry in tree.entries(node)
            ]
