"""A tree of files, entry by entry, as one JSON document on stdout.

Run as a program (`python snapshot.py DIRECTORY`), since a mount of an ordinary user shows itself to that user
alone. It needs nothing but the standard library and reads through descriptors, so that paths may be of any length.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
from typing import Any

TYPES = {
    stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "char", stat.S_IFBLK: "block", stat.S_IFSOCK: "socket",
}  # fmt: skip


def snapshot(top: str) -> dict[str, dict[str, Any]]:
    """Path below `top` ("." for itself) -> what is there. `links` names all paths of a hard-linked file."""
    found: dict[str, dict[str, Any]] = {}
    names: dict[tuple[int, int], list[str]] = {}
    pending = [(os.open(top, os.O_RDONLY | os.O_DIRECTORY), "")]
    found["."] = describe(pending[0][0], ".", os.stat(top))
    while pending:
        directory, prefix = pending.pop()
        with os.scandir(directory) as entries:
            listed = sorted(os.fsdecode(entry.name) for entry in entries)
        if len(set(listed)) != len(listed):
            found[prefix]["twice"] = True
        for name in listed:
            path = prefix + name
            info = os.stat(name, dir_fd=directory, follow_symlinks=False)
            found[path] = describe(directory, name, info)
            if stat.S_ISDIR(info.st_mode):
                below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
                pending.append((below, path + "/"))
            elif info.st_nlink > 1:
                names.setdefault((info.st_dev, info.st_ino), []).append(path)
        os.close(directory)
    for paths in names.values():
        for path in paths:
            found[path]["links"] = sorted(paths)
    return found


def describe(directory: int, name: str, info: os.stat_result) -> dict[str, Any]:
    """One entry: what stat says, the target, the xattrs and the checksum of the content."""
    kind = TYPES[stat.S_IFMT(info.st_mode)]
    entry: dict[str, Any] = {
        "type": kind,
        "mode": f"{stat.S_IMODE(info.st_mode):04o}",
        "owner": [info.st_uid, info.st_gid],
        "mtime": info.st_mtime_ns,
    }
    if kind != "dir":
        entry["size"] = info.st_size
        entry["nlink"] = info.st_nlink
    if kind in ("char", "block"):
        entry["device"] = [os.major(info.st_rdev), os.minor(info.st_rdev)]
    if kind == "symlink":
        entry["target"] = os.readlink(name, dir_fd=directory)
    entry["xattrs"] = xattrs(directory, name)
    if kind == "file":
        entry["content"] = checksum(directory, name)
    return entry


def xattrs(directory: int, name: str) -> dict[str, str]:
    """Through /proc: there is no call that takes a directory's descriptor and a name."""
    path = f"/proc/self/fd/{directory}/{name}"
    return {
        key: os.getxattr(path, key, follow_symlinks=False).hex()
        for key in sorted(os.listxattr(path, follow_symlinks=False))
    }


def checksum(directory: int, name: str) -> str:
    """sha256 of the content."""
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
    digest = hashlib.sha256()
    with open(fd, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def differences(ours: dict[str, Any], theirs: dict[str, Any], ignore: frozenset[str] = frozenset()) -> str:
    """What is not the same, a line each and "" when nothing is; fields named in `ignore` are not compared."""
    lines = [f"only in ours: {path!r}" for path in sorted(ours.keys() - theirs.keys())]
    lines += [f"missing in ours: {path!r}" for path in sorted(theirs.keys() - ours.keys())]
    for path in sorted(ours.keys() & theirs.keys()):
        for key in sorted((ours[path].keys() | theirs[path].keys()) - ignore):
            mine, other = ours[path].get(key), theirs[path].get(key)
            if mine != other:
                lines.append(f"{path!r}: {key} is {mine!r}, expected {other!r}")
    return "\n".join(lines)


if __name__ == "__main__":
    json.dump(snapshot(sys.argv[1]), sys.stdout)
