"""Putting a union together from a tree and directories."""

from __future__ import annotations

from unionfs import ownership
from unionfs.features import USUAL, Features
from unionfs.tree import Tree
from unionfs.union import Union
from unionfs.upper import Upper, leaving


def open_union(
    tree: Tree,
    upperdir: str | bytes | None = None,
    workdir: str | bytes | None = None,
    squash: tuple[int, int] | None = None,
    translated: ownership.Translated | None = None,
    overrides: bool = False,
    volatile: bool = False,
    features: Features = USUAL,
) -> Union:
    """A union of a tree and, if `upperdir` is given, an upper with its work directory.

    `overrides`: the upper keeps owners and modes in xattrs, whether its root says so already or not.
    `volatile`: fsync(2) and its like need not bring anything to a disk.
    `squash`: every owner is shown as this (uid, gid), and none is stored. `translated`: owners are stored as other ids.
    Otherwise they are real as far as this user namespace maps them. Raises `OSError` as `Upper` does.
    """
    owners: ownership.Ownership
    if squash is not None:
        owners = ownership.Squash(*squash)
    elif translated is not None:
        owners = translated
    else:
        owners = ownership.of_this_namespace(tree.max_uid, tree.max_gid)
    upper = None
    if upperdir is not None:
        if workdir is None:
            raise ValueError("an upper directory needs a work directory")
        upper = Upper(upperdir, workdir, overrides, volatile, features.access)
        leaving.settle(upper)
    if features.sync or features.sync_names:
        from unionfs.union.synchronous import Synchronous

        return Synchronous(tree, upper, owners, features)
    return Union(tree, upper, owners, features)
