"""The same content three times: as a plain directory, as two directories that merge to it, as an image of it."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from unionfs.image.compiler import compile_image
from unionfs.image.tree import CompiledImage
from unionfs.live.directories import DirectoryStack
from unionfs.tree import Tree

PAST = 1_000_000_000
"""st_mtime in seconds of everything there is at the start; what is changed later is younger than `RECENT`."""

RECENT = 1_500_000_000

BIG = 1_300_000
"""Size of the file whose copy-up is left to a worker."""


class Item(NamedTuple):
    """One name. `text` is a file's content, a symlink's target, or the name that a hard link repeats."""

    path: str
    kind: str  # dir, file, symlink, link or fifo
    text: str = ""
    mode: int = 0o644
    xattr: str = ""
    top: bool = False  # of the upper one of the two layers


CONTENT = [
    Item("d", "dir", mode=0o755),
    Item("d/f", "file", "content of d/f", xattr="one"),
    Item("d/g", "file", "top has d/g", top=True),
    Item("d/l", "symlink", "f"),
    Item("d/e", "dir", mode=0o2775),
    Item("d/e/f", "file", "content of d/e/f", 0o600),
    Item("d/e/x", "dir", mode=0o700),
    Item("d/e/x/f", "file", "deep", 0o4755),
    Item("a", "file", "a file of three names", xattr="two"),
    Item("b", "link", "a"),
    Item("d/h", "link", "a"),
    Item("big", "file", "0123456789abcdef" * (BIG // 16)),
    Item("empty", "dir", mode=0o755, top=True),
    Item("void", "file", ""),
    Item("s", "symlink", "d/f"),
    Item("t", "symlink", "d", top=True),
    Item("p", "fifo", mode=0o640),
    Item("m", "dir", mode=0o1777, xattr="three"),
    Item("m/f", "file", "bottom has m/f"),
    Item("m/g", "file", "top has m/g", top=True),
    Item("q", "link", "p"),
]

JUNK = [
    Item("gone", "file", "hidden"),
    Item("d/g", "file", "hidden"),
    Item("m/old", "dir", mode=0o755),
    Item("m/old/f", "file", "hidden"),
    Item("empty", "dir", mode=0o755),
    Item("empty/f", "file", "hidden"),
    Item("t", "file", "hidden"),
]
"""What the lower layer has and the upper one hides."""

WHITEOUTS = ["gone", "m/old"]
OPAQUE = ["empty"]


def build_plain(base: Path) -> None:
    """All of the content in one directory."""
    _build(base, CONTENT)


def build_layers(base: Path) -> list[Path]:
    """The two layers, topmost first, with whiteouts as devices and xattrs."""
    top, low = base / "top", base / "low"
    _build(low, [item for item in CONTENT if not item.top] + JUNK)
    _build(top, list(_of_top()), [_device(name) for name in WHITEOUTS])
    for name in OPAQUE:
        os.setxattr(top / name, "user.overlay.opaque", b"y")
    return [top, low]


def _of_top() -> Iterator[Item]:
    """What the upper layer has, with the directories above."""
    needed = {str(Path(name).parent) for name in [*(item.path for item in CONTENT if item.top), *WHITEOUTS]}
    for item in CONTENT:
        if item.top or item.path in needed:
            yield item


def _device(name: str) -> Item:
    return Item(name, "device")


def _build(base: Path, items: list[Item], whiteouts: list[Item] | None = None) -> None:
    base.mkdir(exist_ok=True)
    for item in [*items, *(whiteouts or [])]:
        _make(base, base / item.path, item)
    for item in reversed(items):
        os.utime(base / item.path, (PAST, PAST), follow_symlinks=False)


def _make(base: Path, path: Path, item: Item) -> None:
    if item.kind == "dir":
        path.mkdir()
    elif item.kind == "file":
        path.write_text(item.text)
    elif item.kind == "symlink":
        path.symlink_to(item.text)
    elif item.kind == "link":
        os.link(base / item.text, path)
    elif item.kind == "fifo":
        os.mkfifo(path)
    else:
        os.mknod(path, stat.S_IFCHR | 0o600, 0)
    if item.kind in ("dir", "file", "fifo"):
        path.chmod(item.mode)
    if item.xattr:
        os.setxattr(path, f"user.{item.xattr}", item.xattr.encode())


def build_image(base: Path) -> tuple[Path, list[Path]]:
    """An index and its two layer tars, the lowest first."""
    low, top = base / "low.tar", base / "top.tar"
    _pack(low, [item for item in CONTENT if not item.top] + JUNK)
    marks = [Item(str(Path(name).with_name(".wh." + Path(name).name)), "file") for name in WHITEOUTS]
    marks += [Item(f"{name}/.wh..wh..opq", "file") for name in OPAQUE]
    _pack(top, [*_of_top(), *marks])
    compile_image([low, top], base / "image.index")
    return base / "image.index", [low, top]


_TAR_TYPES = {
    "dir": tarfile.DIRTYPE,
    "file": tarfile.REGTYPE,
    "symlink": tarfile.SYMTYPE,
    "link": tarfile.LNKTYPE,
    "fifo": tarfile.FIFOTYPE,
}


def _pack(path: Path, items: list[Item]) -> None:
    import io

    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for item in items:
            info = tarfile.TarInfo(item.path)
            info.type, info.mode, info.mtime = _TAR_TYPES[item.kind], item.mode, PAST
            info.uid, info.gid = os.getuid(), os.getgid()
            if item.kind in ("symlink", "link"):
                info.linkname = item.text
            data = item.text.encode() if item.kind == "file" else b""
            info.size = len(data)
            if item.xattr:
                info.pax_headers = {f"SCHILY.xattr.user.{item.xattr}": item.xattr}
            archive.addfile(info, io.BytesIO(data))


class Lower:
    """The content as a tree of either kind, made once and opened as often as needed."""

    def __init__(self, base: Path, kind: str) -> None:
        base.mkdir()
        self._kind = kind
        if kind == "image":
            self._index, self._tars = build_image(base)
        else:
            self._layers = build_layers(base)

    def open(self) -> Tree:
        """A fresh tree."""
        if self._kind == "image":
            return CompiledImage(self._index, self._tars)
        return DirectoryStack([os.fsencode(layer) for layer in self._layers])


LOWERS = ("directories", "image")
