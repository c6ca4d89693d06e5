"""Xattrs that the upper's file system does not take are left out of what is copied up, and that is said once."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.mounted import Mounted
from unionfs.image.compiler import compile_image
from unionfs.image.tree import CompiledImage
from unionfs.serve import ENGINES

pytestmark = pytest.mark.only_root  # mounts file systems for the upper

ANY = 0xFFFFFFFF
ACL = struct.pack("<I" + 5 * "HHI", 2, 1, 6, ANY, 2, 6, 1000, 4, 4, ANY, 16, 6, ANY, 32, 0, ANY)
XATTRS = {"user.plain": b"value", "btrfs.compression": b"zstd", "system.posix_acl_access": ACL}


@pytest.fixture
def image(tmp_path: Path) -> Callable[[], CompiledImage]:
    layer = tmp_path / "layer.tar"
    with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind in (("d", tarfile.DIRTYPE), ("d/f", tarfile.REGTYPE), ("d/g", tarfile.REGTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, 0o755
            info.pax_headers = {f"SCHILY.xattr.{key}": os.fsdecode(value) for key, value in XATTRS.items()}
            tar.addfile(info, io.BytesIO())
    compile_image([layer], tmp_path / "index")
    return lambda: CompiledImage(tmp_path / "index", [layer])


def taken(disk: Path) -> set[str]:
    """Those that the file system takes: none on ramfs, not those of btrfs on tmpfs."""
    probe, found = disk / "probe", set()
    probe.touch()
    for name, value in XATTRS.items():
        with contextlib.suppress(OSError):
            os.setxattr(probe, name, value)
            found.add(name)
    return found


@pytest.fixture(params=["tmpfs", "ramfs"])
def on_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", request.param, "ufs-test", disk], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("engine", ENGINES)
def test_they_are_left_out_and_it_is_said_once(image: Callable[[], CompiledImage], on_disk: Path, engine: str) -> None:
    kept = taken(on_disk)
    assert "btrfs.compression" not in kept
    mounted = Mounted(on_disk, image, engine)
    mounted.mount()
    try:
        root = mounted.target
        assert set(os.listxattr(root / "d/f")) == set(XATTRS)
        (root / "d/f").write_text("written")
        os.link(root / "d/g", root / "linked")
        (root / "d").chmod(0o700)
        for name in ("d", "d/f", "linked"):
            assert set(os.listxattr(root / name)) == kept, name
        assert (root / "d/f").read_text() == "written"
        said = mounted.take_log().splitlines()
        assert len(said) == 1
        assert "the upper takes no xattr" in said[0]
    finally:
        mounted.unmount()
