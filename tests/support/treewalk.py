"""What a `unionfs.tree.Tree` holds, in the shape of `tests.support.snapshot`."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import Any

from tests.support.snapshot import TYPES
from unionfs.fuse import wire
from unionfs.tree import ROOT, Tree

NANOSECONDS = 1_000_000_000


def walk(tree: Tree) -> dict[str, dict[str, Any]]:
    """Path -> fields, as `snapshot` gives of a mounted tree. Lookup and listing must agree."""
    found = {".": _describe(tree, ROOT)}
    names: dict[int, list[str]] = {}
    pending = [(ROOT, "")]
    while pending:
        directory, prefix = pending.pop()
        for entry in tree.entries(directory):
            node = tree.lookup(directory, entry.name)
            assert node == entry.node, (prefix, entry)
            path = prefix + os.fsdecode(entry.name)
            found[path] = _describe(tree, node)
            if found[path]["type"] == "dir":
                pending.append((node, path + "/"))
            elif found[path]["nlink"] > 1:
                names.setdefault(node, []).append(path)
    for paths in names.values():
        for path in paths:
            found[path]["links"] = sorted(paths)
    return found


def _describe(tree: Tree, node: int) -> dict[str, Any]:
    attr = wire.Attr.unpack(tree.attr(node))
    kind = TYPES[stat.S_IFMT(attr.mode)]
    entry: dict[str, Any] = {
        "type": kind,
        "mode": f"{stat.S_IMODE(attr.mode):04o}",
        "owner": [attr.uid, attr.gid],
        "mtime": attr.mtime * NANOSECONDS + attr.mtimensec,
        "xattrs": {os.fsdecode(name): value.hex() for name, value in sorted(tree.xattrs(node).items())},
    }
    if kind != "dir":
        entry["size"] = attr.size
        entry["nlink"] = attr.nlink
    if kind in ("char", "block"):
        entry["device"] = list(wire.decode_rdev(attr.rdev))
    if kind == "symlink":
        entry["target"] = os.fsdecode(tree.readlink(node))
    if kind == "file":
        entry["content"] = _checksum(tree, node, attr.size)
    return entry


def _checksum(tree: Tree, node: int, size: int) -> str:
    digest = hashlib.sha256()
    offset = 0
    while offset < size:
        run = tree.locate(node, offset, size - offset)
        assert run.length > 0, (node, offset, size)
        length = min(run.length, 1 << 20)
        data = bytes(length) if run.fd < 0 else os.pread(run.fd, length, run.offset)
        assert len(data) == length
        digest.update(data)
        offset += length
    return digest.hexdigest()
