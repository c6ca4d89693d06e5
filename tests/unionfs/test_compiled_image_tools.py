"""Layers written by GNU tar in each of its formats are the directories that it packed.

Images by umoci, skopeo and buildah are compared in tests/test_image_oracle.py.
"""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.unionfs.compiled_image_support import Node, disk_snapshot, find, image, node, read, snapshot

pytestmark = pytest.mark.only_root  # makes devices and owners

IGNORED = {b"security.selinux"}
"""Attributes that a host puts on what is unpacked."""


def comparable(shown: dict[bytes, Node]) -> dict[bytes, Node]:
    """Without what differs by nature."""
    return {
        path: item._replace(xattrs={name: value for name, value in item.xattrs.items() if name not in IGNORED})
        for path, item in shown.items()
    }


def difference(ours: dict[bytes, Node], theirs: dict[bytes, Node]) -> dict[bytes, tuple[Node | None, Node | None]]:
    return {
        path: (ours.get(path), theirs.get(path))
        for path in ours.keys() | theirs.keys()
        if ours.get(path) != theirs.get(path)
    }


def tar(source: Path, out: Path, *options: str) -> bytes:
    command = ["tar", *options, "-cf", out, "-C", source, "."]
    subprocess.run(command, check=True, capture_output=True)
    return out.read_bytes()


def fill(top: Path) -> None:
    """Every kind of file that tar can carry, for a comparison with the directory itself."""
    top.mkdir()
    (top / "d/e").mkdir(parents=True)
    (top / "d/file").write_bytes(b"content")
    (top / "empty").touch()
    (top / ("long" * 60)).mkdir()
    (top / ("long" * 60) / ("name" * 60)).write_bytes(b"x" * 600)
    (top / "s").symlink_to("t" * 300)
    os.link(top / "d/file", top / "linked")
    os.link(top / "s", top / "s2", follow_symlinks=False)
    os.mkfifo(top / "fifo")
    os.mknod(top / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(top / "loop", stat.S_IFBLK | 0o660, os.makedev(7, 300))
    (Path(os.fsdecode(os.fsencode(top) + b"/\xff\xfe\n"))).write_bytes(b"odd")
    os.chown(top / "empty", 1000, 2_000_000)
    (top / "d/file").chmod(0o6755)
    os.utime(top / "empty", ns=(10**9, 1_500_000_000 * 10**9))
    os.utime(top / "d", ns=(0, 0))


@pytest.mark.parametrize("form", ["gnu", "pax", "oldgnu"])
def test_an_archive_of_gnu_tar_is_the_directory_itself(tmp_path: Path, form: str) -> None:
    top = tmp_path / "top"
    fill(top)
    if form == "pax":
        os.utime(top / "empty", ns=(1, 1_234_567_890_123_456_789))
        os.setxattr(top / "d/file", "security.capability", bytes.fromhex("0000000200040000000000000000000000000000"))
        os.setxattr(top / "d", "user.binary", bytes(range(256)))
        os.setxattr(top / "d/e", "user.empty", b"")
    else:
        for folder, folders, files in os.walk(top, topdown=False):
            for path in [folder, *(os.path.join(folder, name) for name in folders + files)]:
                os.utime(path, (0, int(os.lstat(path).st_mtime)), follow_symlinks=False)
    options = ["--xattrs", "--xattrs-include=*"] if form == "pax" else []
    theirs = comparable(disk_snapshot(top))
    with image(tmp_path, tar(top, tmp_path / "a.tar", f"--format={form}", *options)) as tree:
        assert difference(comparable(snapshot(tree)), theirs) == {}


SPARSE = [["--format=gnu"], *(["--format=pax", f"--sparse-version={version}"] for version in ("0.0", "0.1", "1.0"))]


@pytest.mark.parametrize("options", SPARSE, ids=lambda options: options[-1].strip("-"))
def test_sparse_files_of_gnu_tar(tmp_path: Path, options: list[str]) -> None:
    top = tmp_path / "top"
    top.mkdir()
    expected = {}
    for name, pieces, size in (
        ("hole first", [(1 << 20, b"end")], (1 << 20) + 3),
        ("hole last", [(0, b"begin")], 5 << 20),
        ("all hole", [], 1 << 20),
        ("many", [(number << 16, b"piece %d" % number) for number in range(1, 200, 2)], 210 << 16),
        ("after it" * 15, [(0, b"plain")], 5),
    ):
        with open(top / name, "wb") as file:
            for offset, data in pieces:
                file.seek(offset)
                file.write(data)
            file.truncate(size)
        expected[name] = (top / name).read_bytes()
    archive = tar(top, tmp_path / "a.tar", "--sparse", *options)
    assert len(archive) < 4 << 20
    with image(tmp_path, archive) as tree:
        for name, content in expected.items():
            row = find(tree, os.fsencode(name))
            assert node(tree, row).size == len(content)
            assert read(tree, row) == content
            assert read(tree, row, 4096) == content
        many = find(tree, b"many")
        size = len(expected["many"])
        for offset in range(0, size, 10_007):
            run = tree.locate(many, offset, 5000)
            got = bytes(run.length) if run.fd < 0 else os.pread(run.fd, run.length, run.offset)
            assert 0 < run.length <= 5000
            assert got == expected["many"][offset : offset + run.length]
        assert tree.locate(many, size, 1).length == 0
        assert tree.locate(find(tree, b"all hole"), 5, 1 << 30) == (-1, 0, (1 << 20) - 5)
        assert int.from_bytes(tree.attr(find(tree, b"hole last"))[16:24], "little") < 100  # blocks: data alone
