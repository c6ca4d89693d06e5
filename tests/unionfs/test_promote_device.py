"""Devices of an image after copy-up: 0:0 would be a whiteout in an upper, and others only real root may make."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unionfs.compiled_image_support import find, image, item
from unionfs import whiteout
from unionfs.fuse.wire import ENTRY_HEAD, Attr, Fattr
from unionfs.image.tree import CompiledImage
from unionfs.open import open_union
from unionfs.tree import DOTDOT, ROOT
from unionfs.union import Union
from unionfs.union.writing import SetAttr

CHANGES: dict[str, tuple[Callable[[Union, int], object], list[str], int]] = {
    "chmod": (lambda union, node: union.setattr(node, SetAttr(Fattr.MODE, mode=0o600)), ["zero"], 0o600),
    "link": (lambda union, node: union.link(node, ROOT, b"new"), ["new", "zero"], 0o644),
    "rename": (lambda union, node: union.rename(ROOT, b"zero", ROOT, b"new"), ["new"], 0o644),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_whiteout_device_of_an_image_stays_a_device(tmp_path: Path, change: str) -> None:
    upper, work = tmp_path / "upper", tmp_path / "work"
    upper.mkdir()
    work.mkdir()
    call, left, mode = CHANGES[change]
    with mounted(tmp_path) as (union, tree):
        call(union, find(tree, b"zero"))
        assert shown(union) == {name: (stat.S_IFCHR | mode, 0, len(left)) for name in left}
    assert os.listdir(work / "work") == []
    for name in left:
        info = os.lstat(upper / name)
        assert (stat.S_ISREG(info.st_mode), info.st_size) == (True, 0)
    with mounted(tmp_path) as (union, _):
        assert shown(union) == {name: (stat.S_IFCHR | mode, 0, len(left)) for name in left}
        for name in left:
            union.unlink(ROOT, os.fsencode(name))
        assert shown(union) == {}
    assert whiteout.is_whiteout(os.lstat(upper / "zero"))


@contextmanager
def mounted(base: Path) -> Iterator[tuple[Union, CompiledImage]]:
    """A union over an image with the device; coming back is a remount."""
    with image(base, [item("zero", tarfile.CHRTYPE, mode=0o644)]) as tree:
        union = open_union(tree, str(base / "upper"), str(base / "work"))
        try:
            yield union, tree
        finally:
            union.close()


def shown(union: Union) -> dict[str, tuple[int, int, int]]:
    """Mode, device number and links of each name."""
    found = {}
    for name, _ in union.entries(ROOT, DOTDOT):
        attr = Attr.unpack(union.lookup(ROOT, name), ENTRY_HEAD.size)
        found[os.fsdecode(name)] = attr.mode, attr.rdev, attr.nlink
    return found
