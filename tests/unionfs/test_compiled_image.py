"""CompiledImage: what a row, a listing and a lookup say, and which indexes are refused."""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unionfs.compiled_image_support import (
    directory,
    find,
    hardlink,
    image,
    item,
    pack,
    pax_record,
    raw,
    read,
    regular,
    rows,
    snapshot,
    symlink,
)
from unionfs.fuse import wire
from unionfs.fuse.wire import Attr
from unionfs.image.compiler import compile_image
from unionfs.image.format import ROW_SIZE, VERSION, BadIndex
from unionfs.image.tree import CompiledImage
from unionfs.tree import Tree

ODD_NAMES = [
    b"a",
    b"A",
    b" ",
    b"-",
    b"new\nline",
    b"\xff\xfe not utf-8",
    "\u00e9".encode(),
    "e\u0301".encode(),
    b"x" * 255,
    b"x" * 254 + b"\xc3",
    b"...",
    b"wh.not",
    b"*",
    b"\\",
    b"\x01",
]


def test_is_a_tree(tmp_path: Path) -> None:
    with image(tmp_path, []) as tree:
        contract: Tree = tree
        assert contract.stable
        assert rows(tree) == {b"": 1}
        assert not tree.has_entries(1)
        assert tree.names(1) == []


def test_every_kind(tmp_path: Path) -> None:
    layer = [
        directory("./", mode=0o711, uid=5),
        directory("d/", mode=0o1777, mtime=-1),
        regular("d/f", b"hello", mode=0o4755, uid=1000, gid=4_000_000_000, mtime=1.25),
        symlink("d/s", b"\xff/../target"),
        item("d/p", tarfile.FIFOTYPE, mode=0o600),
        item("d/c", tarfile.CHRTYPE, devmajor=4095, devminor=1048575),
        item("d/b", tarfile.BLKTYPE, devmajor=8, devminor=0),
        item("d/zero", tarfile.CHRTYPE, devmajor=0, devminor=0),
        hardlink("d/h", "d/f"),
        hardlink("top", "/d/f"),
        hardlink("s2", "d/s"),
    ]
    with image(tmp_path, layer) as tree:
        shown = snapshot(tree)
        assert shown[b""][:3] == (stat.S_IFDIR | 0o711, 5, 0)
        assert shown[b"d"].mode == stat.S_IFDIR | 0o1777
        assert shown[b"d"].mtime == -(10**9)
        file = shown[b"d/f"]
        assert file[:3] == (stat.S_IFREG | 0o4755, 1000, 4_000_000_000)
        assert (file.mtime, file.nlink, file.content) == (1_250_000_000, 3, b"hello")
        assert shown[b"top"] == shown[b"d/h"] == file
        assert shown[b"d/s"].content == b"\xff/../target"
        assert shown[b"s2"].nlink == 2
        assert shown[b"d/s"].mode == stat.S_IFLNK | 0o777
        assert stat.S_ISFIFO(shown[b"d/p"].mode)
        assert shown[b"d/c"].rdev == (4095, 1048575)
        assert stat.S_ISBLK(shown[b"d/b"].mode)
        assert shown[b"d/b"].rdev == (8, 0)
        assert stat.S_ISCHR(shown[b"d/zero"].mode)  # in a layer this is a device, not a whiteout
        d = find(tree, b"d")
        assert sorted(tree.names(find(tree, b"top"))) == sorted([(1, b"top"), (d, b"f"), (d, b"h")])
        assert tree.names(d) == [(1, b"d")]
        assert (tree.max_uid, tree.max_gid) == (1000, 4_000_000_000)
        assert tree.total_bytes == 5
        assert tree.rows == len({*rows(tree).values()})


def test_rows_are_numbered_breadth_first_by_bytewise_name(tmp_path: Path) -> None:
    layer = [regular("b/y"), regular("b/x"), hardlink("a/z", "b/y"), regular("c"), regular("B")]
    with image(tmp_path, layer) as tree:
        assert rows(tree) == {b"": 1, b"B": 2, b"a": 3, b"b": 4, b"c": 5, b"a/z": 6, b"b/x": 7, b"b/y": 6}


def test_rows_depend_on_the_content_alone(tmp_path: Path) -> None:
    flat = [regular("d/a", b"1"), regular("d/b", b"2"), hardlink("e/c", "d/a"), symlink("e/s", "x")]
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    layers = [
        [regular("d/b", b"old"), regular("gone"), regular("d/more/x")],
        [symlink("e/s", "x"), regular("e/c", b"1"), hardlink("d/a", "e/c")],
        [regular(".wh.gone"), regular("d/.wh.more"), regular("d/b", b"2")],
    ]
    with image(tmp_path / "1", flat) as one, image(tmp_path / "2", *layers) as other:
        assert rows(one) == rows(other)
        assert snapshot(one) == snapshot(other)


def test_odd_names_are_found_and_neighbours_are_not(tmp_path: Path) -> None:
    layer = [regular(b"d/" + name, name) for name in ODD_NAMES]
    with image(tmp_path, layer) as tree:
        d = find(tree, b"d")
        assert [entry.name for entry in tree.entries(d)] == sorted(set(ODD_NAMES))
        for name in ODD_NAMES:
            row = tree.lookup(d, name)
            assert read(tree, row) == name
            assert tree.contains(d, name)
            assert tree.entry(d, name) == wire.entry(row, tree.attr(row))
            for other in (name + b"\0", name + b"x" * 300, name[:-1], b"\0" + name, name + b"/"):
                if other not in ODD_NAMES:
                    assert tree.lookup(d, other) == 0
                    assert tree.entry(d, other) is None
                    assert not tree.contains(d, other)


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    with image(tmp_path, [regular("f", b"x")]) as tree:
        for call in (
            lambda: tree.lookup(2, b"x"),
            lambda: tree.has_entries(2),
            lambda: tree.listing(2, 0, 4096),
            lambda: list(tree.entries(2)),
        ):
            with pytest.raises(OSError, match="directory") as raised:
                call()
            assert raised.value.errno == errno.ENOTDIR


def records(blob: bytes) -> list[tuple[bytes, int, bytes, int, int, int]]:
    """The whole records of a READDIRPLUS reply as (name, node, attr, ino, cookie, type)."""
    found = []
    at = 0
    while at + wire.ENTRY_SIZE + wire.DIRENT.size <= len(blob):
        node, generation, valid, attr_valid, *_ = wire.ENTRY_HEAD.unpack_from(blob, at)
        attr = blob[at + wire.ENTRY_HEAD.size : at + wire.ENTRY_SIZE]
        ino, cookie, length, type_ = wire.DIRENT.unpack_from(blob, at + wire.ENTRY_SIZE)
        start = at + wire.ENTRY_SIZE + wire.DIRENT.size
        following = start + length + -length % 8
        if following > len(blob):
            break
        assert generation == 0
        assert valid == attr_valid == (wire.FOREVER if node else 0)
        found.append((blob[start : start + length], node, attr, ino, cookie, type_))
        at = following
    return found


def test_a_listing_has_the_same_entries_in_any_portions(tmp_path: Path) -> None:
    layer = [regular(b"d/" + name) for name in ODD_NAMES] + [directory("d/sub")]
    with image(tmp_path, layer) as tree:
        d = find(tree, b"d")
        whole = records(tree.listing(d, 0, 1 << 20))
        assert [(name, node, ino, type_) for name, node, _, ino, _, type_ in whole[:2]] == [
            (b".", 0, d, 4),
            (b"..", 0, 1, 4),
        ]
        assert [(name, node, type_, cookie) for name, node, _, _, cookie, type_ in whole[2:]] == [
            (*entry[:2], entry.type, entry.cookie) for entry in tree.entries(d)
        ]
        assert all(attr == tree.attr(node) and ino == node for _, node, attr, ino, _, _ in whole[2:])
        for size in (408, 409, 600, 1024, 4096):
            gathered = []
            cookie = 0
            while found := records(tree.listing(d, cookie, size)):
                gathered += found
                cookie = found[-1][4]
            assert gathered == whole
        for position, entry in enumerate(tree.entries(d)):
            assert list(tree.entries(d, entry.cookie)) == list(tree.entries(d))[position + 1 :]


def test_any_cookie_leads_to_the_start_of_a_record(tmp_path: Path) -> None:
    with image(tmp_path, [regular(b"d/" + name) for name in ODD_NAMES]) as tree:
        d = find(tree, b"d")
        whole = records(tree.listing(d, 0, 1 << 20))
        starts = [0] + [record[4] for record in whole]
        for cookie in range(starts[-1] + 10):
            expected = [record for at, record in zip(starts, whole, strict=False) if at >= cookie]
            assert records(tree.listing(d, cookie, 1 << 20)) == expected
            assert [entry.name for entry in tree.entries(d, cookie)] == [
                record[0] for record in expected if record[0] not in (b".", b"..")
            ]
        for cookie in (1 << 32, (1 << 63) - 1, (1 << 64) - 1):
            assert tree.listing(d, cookie, 4096) == b""
            assert list(tree.entries(d, cookie)) == []


def test_a_hundred_thousand_names_in_a_directory(tmp_path: Path) -> None:
    names = [b"%x" % (number * 2654435761 % (1 << 32)) for number in range(100_000)]
    layer = b"".join(raw(b"d/" + name) for name in names)
    with image(tmp_path, layer) as tree:
        d = find(tree, b"d")
        assert [entry.name for entry in tree.entries(d)] == sorted(names)
        assert all(tree.names(tree.lookup(d, name)) == [(d, name)] for name in names)
        assert tree.lookup(d, b"x") == 0
        last = list(tree.entries(d))[-2]
        assert [entry.name for entry in tree.entries(d, last.cookie)] == [sorted(names)[-1]]


def test_xattrs(tmp_path: Path) -> None:
    values = {
        b"security.capability": b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\xff\xfe=\n\0\0\0\0",
        b"user.empty": b"",
        b"user.\xff\xc3=": b"not = utf-8 \xff",
        b"system.posix_acl_access": bytes(range(256)),
        b"user.big": b"\xfe" * 65536,
    }
    hidden = [
        b"trusted.overlay.opaque",
        b"user.overlay.redirect",
        b"user.fuseoverlayfs.opaque",
        b"user.containers.override_stat",
    ]
    del values[b"user.\xff\xc3="]  # "=" ends a key of a PAX record: such a name cannot be written
    values[b"user.\xff\xc3"] = b"not = utf-8 \xff"
    body = b"".join(
        pax_record(b"SCHILY.xattr." + name, value)
        for name, value in [*values.items(), *((name, b"y") for name in hidden)]
    )
    layer = raw(b"x", b"x", body) + raw(b"f") + raw(b"x", b"x", body) + raw(b"g") + raw(b"plain")
    with image(tmp_path, layer) as tree:
        assert tree.xattrs(find(tree, b"f")) == values
        assert tree.xattrs(find(tree, b"g")) == values
        assert tree.xattrs(find(tree, b"plain")) == {}
        assert tree.xattrs(1) == {}
    assert (tmp_path / "image.index").stat().st_size < 2 * 65536  # equal sets are kept once


def test_locate(tmp_path: Path) -> None:
    with image(tmp_path, [regular("e"), regular("f", b"0123456789")]) as tree:
        f = find(tree, b"f")
        run = tree.locate(f, 3, 4)
        assert os.pread(run.fd, run.length, run.offset) == b"3456"
        assert tree.locate(f, 8, 100).length == 2
        assert tree.locate(f, 10, 100).length == 0
        assert tree.locate(f, 1 << 40, 100).length == 0
        assert tree.locate(find(tree, b"e"), 0, 100).length == 0


def test_blocks_and_times(tmp_path: Path) -> None:
    info, content = regular("f", b"x" * 513, mtime=7)
    info.pax_headers = {"atime": "3.000000001"}
    with image(tmp_path, [(info, content)]) as tree:
        attr = Attr.unpack(tree.attr(2))
        assert (attr.blocks, attr.blksize, attr.nlink) == (2, 4096, 1)
        assert (attr.atime, attr.atimensec, attr.mtime, attr.ctime) == (3, 1, 7, 7)


def test_upper_inode_numbers_follow_the_rows(tmp_path: Path) -> None:
    with image(tmp_path, [regular("f")]) as tree:
        assert tree.foreign_ino(5, 1) == tree.rows + 1
        assert tree.foreign_ino(5, (1 << 64) - 1) < 1 << 64


def test_statvfs_is_a_full_file_system(tmp_path: Path) -> None:
    with image(tmp_path, [regular("f", b"x" * 100_000)]) as tree:
        shown = tree.statvfs()
        assert shown.f_blocks * shown.f_frsize >= 100_000
        assert (shown.f_bfree, shown.f_bavail, shown.f_files, shown.f_ffree) == (0, 0, 2, 0)
        assert shown.f_namemax == 255
        assert shown.f_flag & os.ST_RDONLY


@pytest.fixture
def compiled(tmp_path: Path) -> tuple[Path, Path]:
    """An index and its one layer."""
    layer, index = tmp_path / "layer.tar", tmp_path / "index"
    layer.write_bytes(pack([regular("f", b"content")]))
    compile_image([layer], index)
    return index, layer


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda index, layer: index.write_bytes(b""), "not a compiled image"),
        (lambda index, layer: index.write_bytes(index.read_bytes()[:100]), "not a compiled image"),
        (lambda index, layer: flip(index, 0), "not a compiled image"),
        (lambda index, layer: flip(index, 8), f"format version {VERSION ^ 1}"),
        (lambda index, layer: flip(index, 16), "its sections|bytes long|lie outside"),
        (lambda index, layer: index.write_bytes(index.read_bytes()[:-8]), "its header says"),
        (lambda index, layer: index.write_bytes(index.read_bytes() + b"x"), "its header says"),
        (lambda index, layer: os.truncate(layer, 1024), "layer .*layer.tar has 1024 bytes, not the"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    compiled: tuple[Path, Path], spoil: Callable[[Path, Path], object], message: str
) -> None:
    index, layer = compiled
    before = len(os.listdir("/proc/self/fd"))
    if message.startswith("its sections"):
        data = bytearray(index.read_bytes())
        data[16:24] = (1 << 40).to_bytes(8, "little")
        index.write_bytes(data)
    else:
        spoil(index, layer)
    with pytest.raises(BadIndex, match=message) as raised:
        CompiledImage(index, [layer])
    assert str(index) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(os.listdir("/proc/self/fd")) == before


def test_another_number_of_layers_is_refused(compiled: tuple[Path, Path]) -> None:
    index, layer = compiled
    for layers in ([], [layer, layer]):
        with pytest.raises(BadIndex, match="made from 1 layers"):
            CompiledImage(index, layers)


def test_a_missing_file_is_an_oserror(compiled: tuple[Path, Path]) -> None:
    index, layer = compiled
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        CompiledImage(index, [layer.parent / "nowhere"])
    with pytest.raises(FileNotFoundError, match="nothing"):
        CompiledImage(layer.parent / "nothing", [layer])
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_header_is_row_zero(compiled: tuple[Path, Path]) -> None:
    index, layer = compiled
    with CompiledImage(index, [layer]) as tree:
        assert tree.attr(1) == index.read_bytes()[ROW_SIZE : ROW_SIZE + wire.ATTR.size]
    tree.close()  # closing twice is harmless
