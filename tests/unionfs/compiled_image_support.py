"""Layers to compile, and what a tree shows as plain data, for the tests of compiled images."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from unionfs.fuse.wire import Attr, decode_rdev
from unionfs.image.compiler import compile_image
from unionfs.image.tree import CompiledImage

Item = tuple[tarfile.TarInfo, bytes]


def item(name: bytes | str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **fields: object) -> Item:
    """A member for `write_layer`; `fields` are attributes of TarInfo."""
    info = tarfile.TarInfo(os.fsdecode(name))
    info.type, info.size, info.mtime = kind, len(content), 1_000_000
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def regular(name: bytes | str, content: bytes = b"", **fields: object) -> Item:
    return item(name, content=content, **fields)


def directory(name: bytes | str, **fields: object) -> Item:
    return item(name, tarfile.DIRTYPE, **{"mode": 0o755, **fields})


def symlink(name: bytes | str, target: bytes | str) -> Item:
    return item(name, tarfile.SYMTYPE, linkname=os.fsdecode(target))


def hardlink(name: bytes | str, target: bytes | str) -> Item:
    return item(name, tarfile.LNKTYPE, linkname=os.fsdecode(target))


def pack(items: Iterable[Item], format_: int = tarfile.PAX_FORMAT) -> bytes:
    """An archive of these members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format_, encoding="utf-8", errors="surrogateescape") as archive:
        for info, content in items:
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def raw_header(name: bytes, kind: bytes = b"0", size: int | bytes = 0, **fields: bytes) -> bytes:
    """A ustar header with a right checksum, its other fields as they are given."""
    sizes = size if isinstance(size, bytes) else b"%011o\0" % size
    block = bytearray(512)
    for at, value in (
        (0, name[:100]),
        (100, fields.get("mode", b"0000644\0")),
        (108, fields.get("uid", b"0000000\0")),
        (116, fields.get("gid", b"0000000\0")),
        (124, sizes),
        (136, fields.get("mtime", b"00000000000\0")),
        (156, kind),
        (157, fields.get("link", b"")),
        (257, fields.get("magic", b"ustar\00000")),
        (329, fields.get("major", b"")),
        (337, fields.get("minor", b"")),
        (345, fields.get("prefix", b"")),
    ):
        block[at : at + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def raw(name: bytes, kind: bytes = b"0", content: bytes = b"", **fields: bytes) -> bytes:
    """A whole member: header, content, padding."""
    return raw_header(name, kind, len(content), **fields) + content + bytes(-len(content) % 512)


def pax_record(key: bytes, value: bytes) -> bytes:
    """One record of an extended header, with its own length in front."""
    length = len(key) + len(value) + 3
    while len(b"%d" % length) + len(key) + len(value) + 3 != length:
        length = len(b"%d" % length) + len(key) + len(value) + 3
    return b"%d %s=%s\n" % (length, key, value)


def pax(**records: bytes) -> bytes:
    """An extended header; "__" in a key stands for a dot."""
    body = b"".join(pax_record(key.replace("__", ".").encode(), value) for key, value in records.items())
    return raw(b"PaxHeaders/x", b"x", body)


END = bytes(1024)


class Node(NamedTuple):
    """What a tree shows of one name."""

    mode: int
    uid: int
    gid: int
    rdev: tuple[int, int]
    size: int
    mtime: int  # nanoseconds
    nlink: int
    content: bytes  # of a file, or the target of a symbolic link
    xattrs: dict[bytes, bytes]


@contextmanager
def image(tmp_path: Path, *layers: Iterable[Item] | bytes) -> Iterator[CompiledImage]:
    """Compile layers, the lowest first, and open the image."""
    paths = []
    for number, layer in enumerate(layers):
        path = tmp_path / f"layer{number}.tar"
        path.write_bytes(layer if isinstance(layer, bytes) else pack(layer))
        paths.append(path)
    compile_image(paths, tmp_path / "image.index")
    with CompiledImage(tmp_path / "image.index", paths) as tree:
        yield tree


def find(tree: CompiledImage, path: bytes) -> int:
    """The row at a path, or 0."""
    row = 1
    for name in path.split(b"/") if path else []:
        row = row and tree.lookup(row, name)
    return row


def read(tree: CompiledImage, row: int, step: int = 1 << 20) -> bytes:
    """The content of a regular file, from `locate`."""
    parts = []
    offset = 0
    while True:
        run = tree.locate(row, offset, step)
        if not run.length:
            return b"".join(parts)
        parts.append(bytes(run.length) if run.fd < 0 else os.pread(run.fd, run.length, run.offset))
        offset += run.length


def rows(tree: CompiledImage) -> dict[bytes, int]:
    """Every path of the tree and its row; the root is the empty path."""
    found = {b"": 1}
    todo = [(b"", 1)]
    while todo:
        path, row = todo.pop()
        for entry in tree.entries(row):
            below = path + b"/" + entry.name if path else entry.name
            found[below] = entry.node
            if entry.type == stat.S_IFDIR >> 12:
                todo.append((below, entry.node))
    return found


def snapshot(tree: CompiledImage) -> dict[bytes, Node]:
    """Everything that the tree shows."""
    return {path: node(tree, row) for path, row in rows(tree).items()}


def node(tree: CompiledImage, row: int) -> Node:
    """What the tree shows of one row."""
    attr = Attr.unpack(tree.attr(row))
    content = b""
    if stat.S_ISREG(attr.mode):
        content = read(tree, row)
        assert len(content) == attr.size
    elif stat.S_ISLNK(attr.mode):
        content = tree.readlink(row)
        assert len(content) == attr.size
    assert attr.ino == row
    return Node(
        attr.mode,
        attr.uid,
        attr.gid,
        decode_rdev(attr.rdev),
        0 if stat.S_ISDIR(attr.mode) else attr.size,
        attr.mtime * 10**9 + attr.mtimensec,
        attr.nlink,
        content,
        dict(tree.xattrs(row)),
    )


def disk_snapshot(top: Path) -> dict[bytes, Node]:
    """The same of a directory on disk, links of directories counted as 1."""
    found = {}
    base = os.fsencode(top)
    todo = [b""]
    while todo:
        path = todo.pop()
        where = os.path.join(base, path) if path else base
        status = os.lstat(where)
        content, links = b"", status.st_nlink
        if stat.S_ISDIR(status.st_mode):
            todo += [os.path.join(path, name) for name in os.listdir(where)]
            links = 2 + sum(entry.is_dir(follow_symlinks=False) for entry in os.scandir(where))  # some disks say 1
        elif stat.S_ISREG(status.st_mode):
            content = Path(os.fsdecode(where)).read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(where)
        names = os.listxattr(where, follow_symlinks=False)
        found[path] = Node(
            status.st_mode,
            status.st_uid,
            status.st_gid,
            (os.major(status.st_rdev), os.minor(status.st_rdev)),
            0 if stat.S_ISDIR(status.st_mode) else status.st_size,
            status.st_mtime_ns,
            links,
            content,
            {os.fsencode(name): os.getxattr(where, name, follow_symlinks=False) for name in names},
        )
    return found
