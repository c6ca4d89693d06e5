"""A character device 0:0 of an image is a device; in an upper it would be a whiteout, so it never gets there."""

from __future__ import annotations

import errno
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unionfs.compiled_image_support import find, image, item
from unionfs.fuse.wire import Fattr
from unionfs.open import open_union
from unionfs.tree import ROOT
from unionfs.union import Union
from unionfs.union.writing import SetAttr

CHANGES: dict[str, Callable[[Union, int], object]] = {
    "chmod": lambda union, node: union.setattr(node, SetAttr(Fattr.MODE, mode=0o600)),
    "link": lambda union, node: union.link(node, ROOT, b"new"),
    "rename": lambda union, node: union.rename(ROOT, b"zero", ROOT, b"new"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_whiteout_device_of_an_image_is_not_promoted(tmp_path: Path, change: str) -> None:
    upper, work = tmp_path / "upper", tmp_path / "work"
    upper.mkdir()
    work.mkdir()
    with image(tmp_path, [item("zero", tarfile.CHRTYPE, mode=0o644)]) as tree:
        union = open_union(tree, str(upper), str(work))
        try:
            with pytest.raises(PermissionError) as refused:
                CHANGES[change](union, find(tree, b"zero"))
            assert refused.value.errno == errno.EPERM
            assert os.listdir(upper) == os.listdir(work / "work") == os.listdir(work / "origins") == []
            assert [entry.name for entry in tree.entries(ROOT)] == [b"zero"]
            union.unlink(ROOT, b"zero")
            assert os.listdir(upper) == ["zero"]  # a whiteout, rightly
        finally:
            union.close()
