"""Layer directories for tests, and what a tree shows of them."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from unionfs.fuse import wire
from unionfs.live.directories import DirectoryStack
from unionfs.tree import ROOT

Change = tuple[str, ...]
"""What to do in a layer: a verb, a path, and arguments; see `make`."""


def make(layer: Path, *changes: Change) -> bytes:
    """Fill a layer directory and return its path.

    Verbs: dir, file PATH CONTENT, symlink PATH TARGET, link PATH OLD, fifo, device (a whiteout), mark (an empty
    file, for .wh. names), xattr PATH NAME VALUE. Directories above are made as needed.
    """
    layer.mkdir(exist_ok=True)
    for verb, name, *rest in changes:
        path = layer / name
        path.parent.mkdir(parents=True, exist_ok=True)
        _VERBS[verb](path, layer, *rest)
    return os.fsencode(layer)


_VERBS: dict[str, Any] = {
    "dir": lambda path, layer: path.mkdir(exist_ok=True),
    "file": lambda path, layer, content="": path.write_text(content),
    "symlink": lambda path, layer, target: path.symlink_to(target),
    "link": lambda path, layer, old: os.link(layer / old, path),
    "fifo": lambda path, layer: os.mkfifo(path),
    "device": lambda path, layer: os.mknod(path, stat.S_IFCHR | 0o600, 0),
    "mark": lambda path, layer: path.touch(),
    "xattr": lambda path, layer, name, value: os.setxattr(path, name, value.encode(), follow_symlinks=False),
}


def shown(tree: DirectoryStack) -> dict[str, tuple[str, str]]:
    """Everything in a tree: path to (type, content or target). Checks that listing and lookup agree."""
    found: dict[str, tuple[str, str]] = {}
    waiting = [(ROOT, "")]
    while waiting:
        node, where = waiting.pop()
        for entry in tree.entries(node):
            name = os.fsdecode(entry.name)
            below = tree.lookup(node, entry.name)
            assert below, f"{where}{name} is listed but not found"
            attr = wire.Attr.unpack(tree.attr(below))
            assert stat.S_IFMT(attr.mode) >> 12 == entry.type
            found[where + name] = (_kind(attr.mode), _content(tree, below, attr))
            if stat.S_ISDIR(attr.mode):
                waiting.append((below, where + name + "/"))
    return found


def _kind(mode: int) -> str:
    return stat.filemode(mode)[0]


def _content(tree: DirectoryStack, node: int, attr: wire.Attr) -> str:
    if stat.S_ISREG(attr.mode):
        fd, offset, length = tree.locate(node, 0, attr.size)
        return os.pread(fd, length, offset).decode()
    return os.fsdecode(tree.readlink(node)) if stat.S_ISLNK(attr.mode) else ""


_WALK = """
import json, os, stat, sys
found = {}
for top, directories, files in os.walk(sys.argv[1]):
    for name in directories + files:
        path = os.path.join(top, name)
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            continue  # the kernel lists whiteouts in directories that do not merge, without showing them
        content = os.readlink(path) if stat.S_ISLNK(mode) else open(path).read() if stat.S_ISREG(mode) else ""
        found[os.path.relpath(path, sys.argv[1])] = (stat.filemode(mode)[0], content)
json.dump(found, sys.stdout)
"""


def kernel_shows(layers: Sequence[bytes], target: Path, options: Iterable[str] = ()) -> dict[str, tuple[str, str]]:
    """The same as `shown` of what the kernel's overlayfs makes of the layers, in a mount namespace of its own."""
    target.mkdir(exist_ok=True)
    lower = ":".join(map(os.fsdecode, layers))
    script = 'mount -t overlay overlay -o "$1" "$2" && exec "$3" -c "$4" "$2"'
    words = [",".join([*options, f"lowerdir={lower}"]), str(target), sys.executable, _WALK]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *words], check=True, capture_output=True, text=True
    )
    return {path: (kind, content) for path, (kind, content) in json.loads(done.stdout).items()}
