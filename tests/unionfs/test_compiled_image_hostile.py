"""Archives that are wrong or meant to harm: each is refused in one line, or does no harm. Nothing is published."""

from __future__ import annotations

import io
import os
import random
import re
import resource
import signal
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unionfs.compiled_image_support import (
    END,
    Item,
    directory,
    find,
    hardlink,
    image,
    item,
    node,
    pack,
    pax,
    pax_record,
    raw,
    raw_header,
    read,
    regular,
    rows,
    symlink,
)
from unionfs.image.compiler import LayerError, compile_image
from unionfs.image.tree import CompiledImage


def extended(body: bytes, kind: bytes = b"x") -> bytes:
    return raw(b"PaxHeaders/x", kind, body)


def damaged(block: bytes, at: int) -> bytes:
    return block[:at] + bytes([block[at] ^ 1]) + block[at + 1 :]


def sparse(**records: bytes) -> bytes:
    return pax(**{f"GNU__sparse__{key}": value for key, value in records.items()})


ITEMS: dict[str, tuple[list[Item], str]] = {
    "link to nothing": ([hardlink("a", "b/none")], "member 'a': hard link to nothing: 'b/none'"),
    "link out of the image": (
        [regular("x"), hardlink("a", "../../etc/passwd")],
        "hard link to nothing: '../../etc/pass",
    ),
    "link through a symlink out of the image": (
        [regular("x"), symlink("s", "../.."), hardlink("a", "s/etc/passwd")],
        "hard link to nothing: 's/etc/passwd'",
    ),
    "below a circle of symlinks": (
        [symlink("a", "b"), symlink("b", "a"), regular("a/x")],
        "member 'a/x': more than 40 symbolic links on the way, or a loop of them",
    ),
    "a whiteout below a circle of symlinks": ([symlink("a", "a/b"), regular("a/.wh.x")], "more than 40 symbolic links"),
    "a link to below a circle of symlinks": ([symlink("a", "a"), hardlink("b", "a/x")], "more than 40 symbolic links"),
    "below a chain of symlinks": (
        [*(symlink(f"s{number}", f"s{number + 1}") for number in range(41)), regular("s0/x")],
        "more than 40 symbolic links",
    ),
    "below a symlink with a long component": (
        [symlink("s", "x" * 256), regular("s/x")],
        "member 's/x': a symbolic link on the way has a component of more than 255 bytes",
    ),
    "link before its target": ([hardlink("b", "a"), regular("a")], "member 'b': hard link to nothing: 'a'"),
    "link below a file": ([regular("f"), hardlink("a", "f/x")], "hard link to nothing: 'f/x'"),
    "link to a directory": ([directory("d"), hardlink("a", "d")], "member 'a': hard link to the directory 'd'"),
    "link to a directory through a symlink": (
        [directory("d/e"), symlink("s", "d"), hardlink("a", "s/e")],
        "member 'a': hard link to the directory 's/e'",
    ),
    "link to the root": ([hardlink("a", "/")], "hard link to the directory '/'"),
    "links to each other": ([hardlink("a", "b"), hardlink("b", "a")], "hard link to nothing"),
    "long component": ([regular("d/" + "x" * 256)], "a component of more than 255 bytes"),
    "long directory": ([regular("x" * 256 + "/f")], "a component of more than 255 bytes"),
    "root as a file": ([regular("./")], "the root of the image must be a directory"),
    "root as a symlink": ([symlink(".", "/etc")], "the root of the image must be a directory"),
    "root as a link": ([regular("a"), hardlink(".", "a")], "the root of the image must be a directory"),
    "whiteout of no name": ([regular("d/.wh.")], "a whiteout of no name"),
    "whiteout of the directory itself": ([regular("d/.wh..")], "a whiteout of no name"),
    "whiteout of the parent": ([regular("d/.wh...")], "a whiteout of no name"),
    "member below a whiteout": ([regular(".wh.d/x")], "a member below a whiteout"),
    "symlink to nothing at all": ([symlink("a", "")], "symbolic link with a target of 0 bytes"),
    "long symlink": ([symlink("a", "x" * 4096)], "symbolic link with a target of 4096 bytes"),
    "control characters": ([regular("d/.wh..\x1b[2J\n\x07/x")], r"member 'd/.wh..\\x1b\[2J\\n\\x07/x': "),
    "absurd time": ([regular("a", mtime=2**56)], "absurd time"),
    "unknown type": ([item("a", b"Z")], "member 'a': unknown type b'Z'"),
    "the rest of a file": ([item("a", b"M")], "member 'a': the rest of a file that begins in another volume; join"),
}

BYTES: dict[str, tuple[bytes, str]] = {
    "cut in the first header": (raw(b"a")[:300], "cut in the header at byte 0"),
    "cut in a later header": (raw(b"a") + raw(b"b")[:100], "cut in the header at byte 512"),
    "cut in the content": (raw_header(b"a", size=1000) + b"x" * 999, "member 'a': the archive is cut in its content"),
    "cut after an extended header": (pax(path=b"x"), "cut after an extended header, at byte 1024"),
    "end after an extended header": (pax(path=b"x") + END, "cut after an extended header, at byte 1024"),
    "cut in an extended header": (raw_header(b"p", b"x", 100) + b"x" * 99, "cut in an extended header"),
    "damaged header": (damaged(raw(b"a"), 1), "damaged header: its checksum does not match"),
    "damaged header amid others": (
        raw(b"a") + damaged(raw(b"b"), 20) + raw(b"c"),
        "'b.*checksum does not match .at byte 512",
    ),
    "no archive": (random.Random(1).randbytes(4096), "malformed number|checksum"),
    "gzip": (b"\x1f\x8b\x08" + bytes(600), "malformed number|checksum"),
    "zeros amid members": (raw(b"a") + bytes(512) + raw(b"b"), "a block of zeros amid the members, at byte 512"),
    "negative size": (raw_header(b"a", size=b"\xff" * 12), "negative number"),
    "negative size in text": (raw_header(b"a", size=b"-0000000001\0"), "malformed number b'-"),
    "absurd size": (raw_header(b"a", size=b"\x80" + b"\xff" * 11), "absurd size"),
    "size beyond the archive": (
        raw_header(b"a", size=b"\x80" + bytes(3) + b"\x7f" + b"\xff" * 7),
        "cut in its content",
    ),
    "size of no octal": (raw_header(b"a", size=b"00000000009\0"), "malformed number"),
    "huge extended header": (raw_header(b"a", b"x", (1 << 20) + 1), "extended header of 1048577 bytes, the limit is"),
    "absurd extended header": (raw_header(b"a", b"x", b"\x80" + b"\xff" * 11), "absurd size"),
    "huge long name": (raw_header(b"a", b"L", 1 << 30), "extended header of 1073741824 bytes"),
    "huge global header": (raw_header(b"a", b"g", 1 << 30), "extended header of 1073741824 bytes"),
    "extended: no length": (extended(b"path=x\n") + raw(b"a"), "malformed extended header"),
    "extended: length too long": (extended(b"99 path=x\n") + raw(b"a"), "malformed extended header"),
    "extended: length zero": (extended(b"0 path=x\n") + raw(b"a"), "malformed extended header"),
    "extended: length too short": (extended(b"3 path=x\n") + raw(b"a"), "malformed extended header"),
    "extended: length negative": (extended(b"-9 path=x\n") + raw(b"a"), "malformed extended header"),
    "extended: no key": (extended(b"5 =x\n") + raw(b"a"), "malformed extended header"),
    "extended: no newline": (extended(b"10 path=xy") + raw(b"a"), "malformed extended header"),
    "zero in a name": (pax(path=b"a\0b") + raw(b"a"), "a zero byte in a name"),
    "zero in a target": (pax(linkpath=b"a\0b") + raw(b"a", b"2"), "a zero byte in a name"),
    "extended size": (pax(size=b"4096") + raw(b"a"), "cut in its content"),
    "extended size of no number": (pax(size=b"-1") + raw(b"a"), "size b'-1' is not a number"),
    "extended time": (pax(mtime=b"1e9") + raw(b"a"), "is not a number"),
    "long extended time": (pax(mtime=b"9" * 100) + raw(b"a"), "is not a number"),
    "absurd extended time": (pax(mtime=b"9" * 17) + raw(b"a"), "absurd time"),
    "xattr of no name": (pax(SCHILY__xattr__=b"x") + raw(b"a"), "malformed extended attribute name"),
    "xattr with a zero": (extended(pax_record(b"SCHILY.xattr.a\0b", b"x")) + raw(b"a"), "malformed extended attribute"),
    "long xattr": (extended(pax_record(b"SCHILY.xattr.user.a", b"x" * 65537)) + raw(b"a"), "the limit is 65536"),
    "device out of range": (raw(b"a", b"3", major=b"0010000\0"), "device number 4096:0 is out of range"),
    "sparse of another format": (raw(b"a", b"S", b"123"), "a sparse file of a format that only star reads"),
    "sparse beyond the size": (sparse(size=b"10", map=b"5,6") + raw(b"a", content=b"123456"), "sparse map outside"),
    "sparse beyond what is stored": (
        sparse(size=b"10", map=b"0,6") + raw(b"a", content=b"12345"),
        "sparse map outside",
    ),
    "sparse overlapping": (sparse(size=b"10", map=b"0,3,2,1") + raw(b"a", content=b"12345"), "sparse map outside"),
    "sparse of an odd number": (sparse(size=b"10", map=b"0,3,5") + raw(b"a", content=b"12345"), "malformed sparse map"),
    "sparse of no numbers": (sparse(size=b"10", map=b"0,x") + raw(b"a", content=b"12345"), "is not a number"),
    "sparse of no size": (sparse(major=b"0", map=b"0,1") + raw(b"a", content=b"1"), "sparse size b'' is not"),
    "sparse absurd": (sparse(size=b"9" * 19, map=b"0,1") + raw(b"a", content=b"1"), "absurd size"),
    "sparse map in data without end": (
        sparse(major=b"1", minor=b"0", realsize=b"10") + raw(b"a", content=b"9" * 512),
        "malformed sparse map",
    ),
    "sparse map in data, a long line": (
        sparse(major=b"1", minor=b"0", realsize=b"10") + raw(b"a", content=b"9" * 5120),
        "malformed sparse map",
    ),
    "sparse map in data, too many": (
        sparse(major=b"1", minor=b"0", realsize=b"10") + raw(b"a", content=b"999999999\n" * 100),
        "malformed sparse map",
    ),
    "old sparse cut": (raw_header(b"a", b"S")[:482] + b"\1" + bytes(29), "checksum"),
}


def compiles(layer: Path, out: Path | io.BytesIO) -> str:
    """Why a layer is refused; empty where it is not."""
    try:
        compile_image([layer], out)
    except LayerError as error:
        return str(error)
    return ""


def refused(tmp_path: Path, layer: bytes) -> str:
    """The message that a layer is refused with; checks that nothing was left behind."""
    good, bad = tmp_path / "good.tar", tmp_path / "bad.tar"
    good.write_bytes(pack([regular("fine")]))
    bad.write_bytes(layer)
    out = tmp_path / "out"
    out.mkdir()
    (out / "index").write_bytes(b"the old one")
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(LayerError) as raised:
        compile_image([good, bad], out / "index")
    assert os.listdir(out) == ["index"]
    assert (out / "index").read_bytes() == b"the old one"
    assert len(os.listdir("/proc/self/fd")) == descriptors
    message = str(raised.value)
    assert message.startswith(f"layer {bad}: ")
    assert message.isprintable()
    assert len(message) < 700
    return message


@pytest.mark.parametrize("case", ITEMS)
def test_members_that_are_refused(tmp_path: Path, case: str) -> None:
    members, reason = ITEMS[case]
    assert re.search(reason, refused(tmp_path, pack(members, tarfile.PAX_FORMAT)))


@pytest.mark.parametrize("case", BYTES)
def test_archives_that_are_refused(tmp_path: Path, case: str) -> None:
    layer, reason = BYTES[case]
    assert re.search(reason, refused(tmp_path, layer))


def test_an_archive_cut_anywhere_is_refused_or_ends_at_a_member(tmp_path: Path) -> None:
    whole = pack([regular("a", b"x" * 700), symlink("b", "y" * 200), directory("c"), regular("d", b"z")])
    for cut in range(0, len(whole), 37):
        (tmp_path / "layer.tar").write_bytes(whole[:cut])
        reason = compiles(tmp_path / "layer.tar", io.BytesIO())
        rest_of_block = whole[cut : (cut + 511) // 512 * 512]
        assert "cut" in reason if reason else not rest_of_block.strip(b"\0")


def test_random_damage_never_ends_in_another_error(tmp_path: Path) -> None:
    members = [regular("a/b", b"x" * 700, uid=10**9), symlink("b", "y" * 200), hardlink("c", "a/b"), directory("d")]
    members[0][0].pax_headers = {"SCHILY.xattr.user.a": "value", "mtime": "1.5"}
    whole = pack(members) + sparse(major=b"1", minor=b"0", realsize=b"900")
    whole += raw(b"s", content=(b"2\n0\n100\n300\n50\n").ljust(512, b"\0") + b"d" * 150)
    chance = random.Random(7)
    outcomes = set()
    for _ in range(1500):
        layer = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(layer))
            layer[at] = chance.choice([0, 0x20, 0x2F, 0x30, 0x39, 0x80, 0xFF, chance.randrange(256)])
            header = at // 512 * 512
            if chance.random() < 0.8 and layer[header + 257 : header + 262] == b"ustar":
                layer[header + 148 : header + 156] = b" " * 8
                layer[header + 148 : header + 156] = b"%06o\0 " % sum(layer[header : header + 512])
        (tmp_path / "layer.tar").write_bytes(layer)
        reason = compiles(tmp_path / "layer.tar", tmp_path / "index")
        assert not reason or reason.isprintable()
        if reason:
            outcomes.add("refused")
            continue
        with CompiledImage(tmp_path / "index", [tmp_path / "layer.tar"]) as tree:
            for row in rows(tree).values():
                if stat.S_ISREG(int.from_bytes(tree.attr(row)[60:64], "little")):
                    tree.locate(row, 0, 100)
                tree.xattrs(row)
        outcomes.add("taken")
    assert outcomes == {"refused", "taken"}


def test_ten_thousand_directories_deep(tmp_path: Path) -> None:
    deep = b"d/" * 10_000
    layer = pax(path=deep + b"f") + raw(b"f", content=b"bottom") + pax(linkpath=deep + b"f") + raw(b"link", b"1")
    above = pax(path=deep + b"g") + raw(b"g") + pax(path=deep + b".wh.f") + raw(b"w")
    with image(tmp_path, layer) as tree:
        row = find(tree, deep + b"f")
        assert read(tree, row) == b"bottom"
        assert node(tree, row).nlink == 2
        assert tree.rows == 10_002
    with image(tmp_path, layer, above, pack([regular("d")])) as tree:
        assert sorted(rows(tree)) == [b"", b"d", b"link"]
    with image(tmp_path, layer, above) as tree:
        assert find(tree, deep + b"f") == 0
        assert find(tree, deep + b"g")


def test_a_long_chain_of_extended_headers(tmp_path: Path) -> None:
    layer = pax(path=b"x") * 20_000 + raw(b"@", b"L", b"y\0") * 1000 + pax(path=b"name") + raw(b"a")
    with image(tmp_path, layer) as tree:
        assert sorted(rows(tree)) == [b"", b"y"]


def test_ten_thousand_directories_deep_behind_symlinks(tmp_path: Path) -> None:
    deep = b"d/" * 10_000
    layer = pax(path=deep + b"f") + raw(b"f", content=b"bottom") + pack([symlink("s", "d/" * 2000), symlink("t", "s")])
    above = pax(path=b"t/" + deep[4000:] + b".wh.f") + raw(b"w") + pax(path=b"t/" + deep + b"g") + raw(b"g")
    with image(tmp_path, layer[:-1024], above) as tree:
        assert find(tree, deep + b"f") == 0
        assert find(tree, deep + b"d/" * 2000 + b"g")


def test_many_opaque_marks_over_much_content_are_quick(tmp_path: Path) -> None:
    """Each mark looks at a directory of the layers below once: otherwise this takes minutes."""
    lower = b"".join(raw(b"d%d/f" % number) for number in range(5000))
    above = b"".join(raw(b"d%d/g" % number) for number in range(5000)) + raw(b".wh..wh..opq") * 5000
    with image(tmp_path, lower, above) as tree:
        assert tree.rows == 10_001
        assert find(tree, b"d7/g")
        assert not find(tree, b"d7/f")


def test_names_of_one_archive_do_not_reach_the_host(tmp_path: Path) -> None:
    target = tmp_path / "outside"
    target.mkdir()
    away = str(target)
    layer = [symlink("s", away), regular("s/x", b"1"), symlink("t", "../" * 50 + away), regular("t/y", b"2")]
    before = sorted(os.listdir(tmp_path))
    with image(tmp_path, layer) as tree:
        assert read(tree, find(tree, os.fsencode(f"{away[1:]}/x"))) == b"1"
        assert read(tree, find(tree, os.fsencode(f"{away[1:]}/y"))) == b"2"
    assert os.listdir(target) == []
    assert set(os.listdir(tmp_path)) - set(before) == {"layer0.tar", "image.index"}


class FullDisk(io.BytesIO):
    """Takes some bytes and then no more."""

    def write(self, data: object) -> int:
        if self.tell() > 1000:
            raise OSError(28, "No space left on device")
        assert isinstance(data, bytes | bytearray | memoryview)
        return super().write(data)


def test_a_full_disk_is_an_oserror(tmp_path: Path) -> None:
    (tmp_path / "layer.tar").write_bytes(pack([regular(f"f{number}") for number in range(100)]))
    with pytest.raises(OSError, match="No space left"):
        compile_image([tmp_path / "layer.tar"], FullDisk())


def on_layer(path: Path) -> list[Path]:
    path.write_bytes(pack([regular(f"f{number}") for number in range(3000)]))
    return [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, MemoryError])
def test_whatever_stops_it_leaves_no_file(tmp_path: Path, error: type[BaseException]) -> None:
    layers = on_layer(tmp_path / "layer.tar")

    def stop(done: int, total: int) -> None:
        raise error

    with pytest.raises(error):
        compile_image(layers, tmp_path / "index", stop)
    assert os.listdir(tmp_path) == ["layer.tar"]


def test_a_file_limit_in_the_middle_of_writing(tmp_path: Path) -> None:
    layers = on_layer(tmp_path / "layer.tar")
    with limited_files(100_000), pytest.raises(OSError, match="File too large"):
        compile_image(layers, tmp_path / "index")
    assert os.listdir(tmp_path) == ["layer.tar"]


@contextmanager
def limited_files(size: int) -> Iterator[None]:
    """A write beyond `size` bytes of a file fails with EFBIG, as on a full disk. It holds for the log of the
    tests, too, so it must end before pytest writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_progress_is_told_in_bytes(tmp_path: Path) -> None:
    layers = on_layer(tmp_path / "layer.tar")
    told: list[tuple[int, int]] = []
    compile_image(layers, tmp_path / "index", lambda done, total: told.append((done, total)))
    size = layers[0].stat().st_size
    assert len(told) >= 3
    assert told == sorted(told)
    assert told[-1] == (size, size)
