"""One operation of the union each, of every kind that changes something, and the states before and after it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from tests.support.content import RECENT, Lower
from unionfs import syscalls
from unionfs.fuse.wire import ENTRY_HEAD, Attr, Fattr
from unionfs.open import open_union
from unionfs.tree import DOTDOT, ROOT
from unionfs.union import Busy, Union
from unionfs.union.writing import SetAttr

FORMS = ("devices", "files", "overrides")
"""How whiteouts are written: as devices or as ``.wh.`` files; and owners in xattrs."""

Step = Callable[["Place"], object]


class Place:
    """A union with its operations by path, promotions finished at once."""

    def __init__(self, union: Union) -> None:
        self.union = union

    def id(self, path: str) -> int:
        node = ROOT
        for name in os.fsencode(path).split(b"/") if path else []:
            node = int.from_bytes(self.union.lookup(node, name)[:8], "little")
            assert node, path
        return node

    def at(self, path: str) -> tuple[int, bytes]:
        parent, _, name = path.rpartition("/")
        return self.id(parent), os.fsencode(name)

    def known(self, path: str) -> tuple[int, bytes]:
        """The same after a look at the name, as the kernel has had it."""
        parent, name = self.at(path)
        self.union.lookup(parent, name)
        return parent, name

    @staticmethod
    def do(call: Callable[[], object]) -> object:
        while True:
            try:
                return call()
            except Busy as busy:
                busy.job.work()
                busy.job.finish()
                if busy.job.error is not None:
                    raise busy.job.error from None

    def set(self, path: str, valid: int, **values: int) -> None:
        id = self.id(path)
        self.do(lambda: self.union.setattr(id, SetAttr(valid, **values)))

    def chmod(self, path: str, mode: int = 0o751) -> None:
        self.set(path, Fattr.MODE, mode=mode)

    def write(self, path: str) -> None:
        id = self.id(path)
        self.do(lambda: self.union.write(id, 0, b"CHANGED"))

    def xattr(self, path: str) -> None:
        id = self.id(path)
        self.do(lambda: self.union.setxattr(id, b"user.more", b"value", 0))

    def rename(self, old: str, new: str, flags: int = 0) -> None:
        (parent, name), (newparent, newname) = self.known(old), self.known(new)
        self.do(lambda: self.union.rename(parent, name, newparent, newname, flags))

    def link(self, old: str, new: str) -> None:
        id, (parent, name) = self.id(old), self.at(new)
        self.do(lambda: self.union.link(id, parent, name))

    def unlink(self, path: str) -> None:
        parent, name = self.known(path)
        self.do(lambda: self.union.unlink(parent, name))

    def rmdir(self, path: str) -> None:
        parent, name = self.known(path)
        self.do(lambda: self.union.rmdir(parent, name))

    def create(self, path: str, mode: int = stat.S_IFREG | 0o4750) -> None:
        self.union.mknod(*self.at(path), mode, 0, 7, 8)

    def mkdir(self, path: str) -> None:
        self.union.mkdir(*self.at(path), 0o750, 7, 8)

    def symlink(self, path: str) -> None:
        self.union.symlink(*self.at(path), b"target", 7, 8)

    def nameless(self, path: str) -> None:
        entry = self.union.tmpfile(ROOT, 0o600, 7, 8)
        parent, name = self.at(path)
        self.union.link(int.from_bytes(entry[:8], "little"), parent, name)


def opened(lower: Lower, base: Path, form: str) -> Union:
    """The union over `base`'s upper."""
    return open_union(lower.open(), str(base / "upper"), str(base / "work"), overrides=form == "overrides")


EXCHANGE = syscalls.RENAME_EXCHANGE
LEAVING = syscalls.RENAME_WHITEOUT


def nothing(_: Place) -> None:
    """Before a change that needs no preparation."""


OPERATIONS: dict[str, tuple[Step, Step]] = {
    "write small": (nothing, lambda p: p.write("d/f")),
    "write large": (nothing, lambda p: p.write("big")),
    "write hard-linked": (nothing, lambda p: p.write("a")),
    "write hard-linked again": (lambda p: p.write("a"), lambda p: p.unlink("b")),
    "cut": (nothing, lambda p: p.set("d/f", Fattr.SIZE, size=3)),
    "chmod deep": (nothing, lambda p: p.chmod("d/e/x/f", 0o4755)),
    "chmod directory": (nothing, lambda p: p.chmod("m")),
    "chmod hard-linked fifo": (nothing, lambda p: p.chmod("q")),
    "chmod promoted": (lambda p: p.write("d/f"), lambda p: p.chmod("d/f")),
    "chown": (nothing, lambda p: p.set("d/f", Fattr.UID | Fattr.GID, uid=5, gid=6)),
    "times of a symlink": (nothing, lambda p: p.set("s", Fattr.MTIME | Fattr.ATIME, atime=5, mtime=6)),
    "setxattr": (nothing, lambda p: p.xattr("d/g")),
    "link": (nothing, lambda p: p.link("d/f", "n")),
    "link hard-linked": (nothing, lambda p: p.link("a", "n")),
    "link over whiteout": (lambda p: p.unlink("d/g"), lambda p: p.link("d/f", "d/g")),
    "rename": (nothing, lambda p: p.rename("d/f", "n")),
    "rename large": (nothing, lambda p: p.rename("big", "d/n")),
    "rename hard-linked": (nothing, lambda p: p.rename("a", "n")),
    "rename symlink": (nothing, lambda p: p.rename("s", "n")),
    "rename over": (nothing, lambda p: p.rename("d/f", "d/g")),
    "rename over hard-linked": (nothing, lambda p: p.rename("d/f", "a")),
    "rename over promoted": (lambda p: p.write("d/g"), lambda p: p.rename("d/f", "d/g")),
    "rename over whiteout": (lambda p: p.unlink("d/g"), lambda p: p.rename("d/f", "d/g")),
    "rename directory": (nothing, lambda p: p.rename("d", "n")),
    "rename directory back": (lambda p: p.rename("d", "n"), lambda p: p.rename("n", "d")),
    "rename directory over": (nothing, lambda p: p.rename("d/e", "empty")),
    "rename directory over emptied": (lambda p: [p.unlink("m/f"), p.unlink("m/g")], lambda p: p.rename("d", "m")),
    "rename new directory over whiteout": (
        lambda p: [p.rmdir("empty"), p.mkdir("n"), p.create("n/f")], lambda p: p.rename("n", "empty"),
    ),
    "exchange files": (nothing, lambda p: p.rename("d/f", "a", EXCHANGE)),
    "exchange directories": (nothing, lambda p: p.rename("d", "m", EXCHANGE)),
    "exchange file and directory": (nothing, lambda p: p.rename("d/f", "m", EXCHANGE)),
    "rename leaving a device": (nothing, lambda p: p.rename("d/f", "n", LEAVING)),
    "rename new file leaving a device": (lambda p: p.create("d/n"), lambda p: p.rename("d/n", "n", LEAVING)),
    "rename leaving a device over": (nothing, lambda p: p.rename("a", "d/f", LEAVING)),
    "rename directory leaving a device": (
        lambda p: p.rmdir("empty"), lambda p: p.rename("m", "empty", LEAVING),
    ),
    "unlink": (nothing, lambda p: p.unlink("d/f")),
    "unlink hard-linked": (nothing, lambda p: p.unlink("b")),
    "unlink promoted": (lambda p: p.write("d/f"), lambda p: p.unlink("d/f")),
    "unlink new": (lambda p: p.create("d/n"), lambda p: p.unlink("d/n")),
    "unlink the last of several": (lambda p: [p.unlink("a"), p.unlink("b")], lambda p: p.unlink("d/h")),
    "rmdir": (nothing, lambda p: p.rmdir("empty")),
    "rmdir emptied": (lambda p: [p.unlink("m/f"), p.unlink("m/g")], lambda p: p.rmdir("m")),
    "rmdir new with whiteouts": (
        lambda p: [p.rename("m", "n"), p.unlink("n/f"), p.unlink("n/g")], lambda p: p.rmdir("n"),
    ),
    "create": (nothing, lambda p: p.create("d/e/n")),
    "create over whiteout": (lambda p: p.unlink("d/f"), lambda p: p.create("d/f")),
    "fifo over whiteout": (lambda p: p.unlink("d/f"), lambda p: p.create("d/f", stat.S_IFIFO | 0o640)),
    "mkdir": (nothing, lambda p: p.mkdir("d/e/n")),
    "mkdir over whiteout": (lambda p: p.rmdir("empty"), lambda p: p.mkdir("empty")),
    "symlink over whiteout": (lambda p: p.unlink("d/f"), lambda p: p.symlink("d/f")),
    "name for a nameless file": (nothing, lambda p: p.nameless("d/n")),
}  # fmt: skip
"""Name to what is done before, and what is watched."""

State = dict[str, tuple[object, ...]]


def state(lower: Lower, base: Path, form: str) -> State:
    """All that a fresh union shows. Nothing may be left in the work directory."""
    union = opened(lower, base, form)
    try:
        assert os.listdir(base / "work/work") == []
        found: State = {}
        _collect(union, ROOT, "", found)
        return found
    finally:
        union.close()


def _collect(union: Union, directory: int, path: str, found: State) -> None:
    for name, _ in list(union.entries(directory, DOTDOT)):
        entry = union.lookup(directory, name)
        id, attr = int.from_bytes(entry[:8], "little"), Attr.unpack(entry, ENTRY_HEAD.size)
        where = f"{path}/{os.fsdecode(name)}"
        xattrs = sorted((key, union.getxattr(id, key)) for key in union.listxattr(id))
        shown = (stat.filemode(attr.mode), attr.uid, attr.gid, attr.rdev, *xattrs)
        if stat.S_ISDIR(attr.mode):
            found[where] = shown
            _collect(union, id, where, found)
            continue
        content = union.readlink(id) if stat.S_ISLNK(attr.mode) else b""
        if stat.S_ISREG(attr.mode):
            content = union.read(id, 0, attr.size)
        found[where] = (*shown, attr.nlink, attr.size, min(attr.mtime, RECENT), content)
