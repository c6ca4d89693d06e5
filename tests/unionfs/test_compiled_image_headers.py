"""Headers of every age and writer: V7, ustar, star, GNU and PAX, as Go's archive/tar and GNU tar read them."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from tests.unionfs.compiled_image_support import (
    END,
    Item,
    directory,
    disk_snapshot,
    find,
    hardlink,
    image,
    item,
    node,
    pax,
    raw,
    raw_header,
    read,
    regular,
    rows,
    snapshot,
    symlink,
)
from tests.unionfs.umoci_support import unpack
from unionfs.fuse.wire import Attr

GNU = b"ustar  \0"
V7 = bytes(8)

NUMBERS = {
    "seven digits": (b"0001750\0", 1000),
    "eight digits": (b"00001750", 1000),
    "a blank after it": (b"001750 \0", 1000),
    "blanks before it": (b"   1750\0", 1000),
    "short": (b"1750\0", 1000),
    "what follows a zero byte": (b"1750\0xyz", 1000),
    "digits after a zero byte": (b"1750\x00777", 1000),
    "what follows a blank": (b"1750 7 x", 1000),
    "nothing": (bytes(8), 0),
    "base 256": (b"\x80\0\0\0\0\0\x03\xe8", 1000),
    "base 256, large": (b"\x80\0\0\0\xff\xff\xff\xfe", 2**32 - 2),
}


@pytest.mark.parametrize("case", NUMBERS)
def test_a_number_is_what_gnu_tar_reads(tmp_path: Path, case: str) -> None:
    field, expected = NUMBERS[case]
    layer = raw(b"f", content=b"x", uid=field, gid=field, magic=GNU) + END
    with image(tmp_path, layer) as tree:
        shown = node(tree, find(tree, b"f"))
    assert (shown.uid, shown.gid) == (expected, expected)
    listed = subprocess.run(["tar", "--numeric-owner", "-tvf", "-"], input=layer, capture_output=True, check=True)
    assert listed.stdout.split()[1] == b"%d/%d" % (expected, expected)


@pytest.mark.parametrize(("field", "expected"), [(b"\0\0 1750\0", 1000), (b"        ", 0)])
def test_a_number_is_what_go_reads_where_tar_gives_up(tmp_path: Path, field: bytes, expected: int) -> None:
    with image(tmp_path, raw(b"f", uid=field)) as tree:
        assert node(tree, find(tree, b"f")).uid == expected


@pytest.mark.parametrize("field", [b"17x0\0", b"1759\0", b"-1\0", b"+5\0", b"0o17\0", b"1_0\0", b"x\0"])
def test_what_is_no_number_is_refused(tmp_path: Path, field: bytes) -> None:
    with pytest.raises(ValueError, match="malformed number"), image(tmp_path, raw(b"f", uid=field)):
        pass


def test_every_numeric_field_takes_blanks(tmp_path: Path) -> None:
    layer = raw(b"f", content=b"content", mode=b" 4755 \0x", mtime=b"      1750 x") + raw(
        b"n", b"3", mode=b"   644 \0", major=b" 1 \0", minor=b"     3 \0", mtime=b"\0" * 12
    )
    sized = raw_header(b"g", size=b"         5 \0")
    with image(tmp_path, layer + sized + b"01234".ljust(512, b"\0")) as tree:
        shown = snapshot(tree)
    assert (shown[b"f"].mode, shown[b"f"].mtime) == (stat.S_IFREG | 0o4755, 1000 * 10**9)
    assert shown[b"n"].rdev == (1, 3)
    assert shown[b"g"].content == b"01234"


OWNERS = [
    (2**32 - 2, 2**32 - 2),
    (2**32 - 1, 0),  # chown(2) leaves root's own
    (2**32 + 5, 5),
    (-2, 2**32 - 2),  # nobody of other systems
    (-1, 0),
]


@pytest.mark.parametrize(("stated", "shown"), OWNERS)
@pytest.mark.parametrize("form", ["base 256", "pax"])
def test_owners_are_what_chown_makes_of_them(tmp_path: Path, stated: int, shown: int, form: str) -> None:
    layer = raw(b"f", uid=(stated & (1 << 64) - 1 if stated < 0 else stated | 1 << 63).to_bytes(8, "big"))
    if form == "pax":
        layer = pax(uid=b"%d" % stated, gid=b"%d" % stated) + raw(b"f")
    with image(tmp_path, layer) as tree:
        assert node(tree, find(tree, b"f")).uid == shown


STAR = {"prefix": b"deep/er".ljust(131, b"\0") + b"00000001750\0" + b"00000000000\0"}


def star(name: bytes, **fields: bytes) -> bytes:
    """A header with star's trailer, its sum made right again."""
    block = bytearray(raw_header(name, **fields))
    block[508:] = b"tar\0"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


NAMES = {
    "ustar": (raw(b"f", prefix=b"a/b"), "a/ a/b/ a/b/f"),
    "ustar, a version of blanks": (raw(b"f", prefix=b"a", magic=b"ustar\0  "), "a/ a/f"),
    "ustar, both full": (raw(b"x" * 100, prefix=b"a/" * 77 + b"b"), "a/" * 77 + "b/" + "x" * 100),
    "V7 has no prefix": (raw(b"f", prefix=b"a", magic=V7), "f"),
    "star": (star(b"f", **STAR), "deep/ deep/er/ deep/er/f"),
    "star, a full prefix": (star(b"f", prefix=b"a/" * 65 + b"b" + b"00000001750\0"), "a/" * 65 + "b/f"),
    "times of GNU are no prefix": (raw(b"f", prefix=b"00000001750\x0000000001750\0", magic=GNU), "f"),
    "a prefix that old Go wrote": (raw(b"f", prefix=b"usr/share", magic=GNU), "usr/ usr/share/ usr/share/f"),
    "GNU long name": (raw(b"@", b"L", b"long/name\0") + raw(b"short", magic=GNU), "long/ long/name"),
    "an empty GNU long name": (raw(b"@", b"L", b"\0") + raw(b"short"), "short"),
    "PAX name": (pax(path=b"p/q") + raw(b"f", prefix=b"no"), "p/ p/q"),
    "an empty PAX name": (pax(path=b"") + raw(b"f", prefix=b"a"), "a/ a/f"),
    "PAX and GNU names": (raw(b"@", b"L", b"gnu\0") + pax(path=b"pax") + raw(b"f"), "gnu"),
    "a second extended header": (pax(path=b"one") + pax(mtime=b"5") + raw(b"f"), "f"),
    "an extended header of Solaris": (raw(b"x", b"X", b"10 path=p\n") + raw(b"f"), "p"),
    "global header": (raw(b"pax_global_header", b"g", b"9 path=x\n") + raw(b"f"), "f"),
    "global header, then a local one": (
        raw(b"g", b"g", b"9 path=x\n") + pax(path=b"y") + raw(b"f"), "y",
    ),
    "a volume label": (raw(b"label", b"V", magic=GNU) + raw(b"f"), "f"),
    "a volume label with content": (raw(b"label", b"V", b"content") + raw(b"f"), "f"),
    "contiguous": (raw(b"f", b"7", b"content"), "f"),
    "a dumped directory": (raw(b"d/", b"D", b"Yf\0\0", magic=GNU) + raw(b"d/f", magic=GNU), "d/ d/f"),
    "a directory with a size": (raw_header(b"d/", b"5", 4096) + raw(b"d/f"), "d/ d/f"),
    "a directory of V7": (raw_header(b"d/", b"\0", 10, magic=V7) + raw(b"d/f", b"\0", magic=V7), "d/ d/f"),
    "links with a size": (
        raw(b"f") + raw_header(b"h", b"1", 9, link=b"f") + raw_header(b"s", b"2", 9, link=b"f"), "f h s",
    ),
    "a link with itself": (raw(b"f", content=b"1") + raw(b"./f", b"1", link=b"/x/../f"), "f"),
    "a directory linked with itself": (raw(b"d/", b"5") + raw(b"d/f") + raw(b"d", b"1", link=b"d/"), "d/ d/f"),
    "a link of nothing with itself": (raw(b"d/f", b"1", link=b"./d/f") + raw(b"g"), "d/ g"),
    "a symbolic link with itself": (raw(b"s", b"2", link=b"s"), "s"),
}  # fmt: skip


@pytest.mark.parametrize("case", NAMES)
def test_names_and_types(tmp_path: Path, case: str) -> None:
    layer, expected = NAMES[case]
    with image(tmp_path, layer) as tree:
        found = " ".join(
            sorted(path.decode() + "/" * stat.S_ISDIR(entry.mode) for path, entry in snapshot(tree).items() if path)
        )
    assert found == expected or (len(expected) > 100 and found.split()[-1] == expected)


def test_access_times_of_star_and_gnu(tmp_path: Path) -> None:
    layer = star(b"s", **STAR) + raw(b"g", prefix=b"00000001750\x0000000001750\0", magic=GNU, mtime=b"00000000005\0")
    with image(tmp_path, layer + pax(atime=b"7.5") + star(b"p", **STAR)) as tree:
        times = {name: Attr.unpack(tree.attr(find(tree, name))) for name in (b"deep/er/s", b"g", b"deep/er/p")}
    assert [times[name].atime for name in (b"deep/er/s", b"g", b"deep/er/p")] == [1000, 1000, 7]
    assert times[b"g"].mtime == 5


CLEANED: dict[str, tuple[list[list[Item]], str]] = {
    "absolute": ([[regular("/var/run/ko/app", b"1")]], "var/ var/run/ var/run/ko/ var/run/ko/app"),
    "two slashes": ([[regular("//x"), regular("d//y"), directory("e///")]], "d/ d/y e/ x"),
    "back within": ([[regular("a/../f"), regular("b/./../c/./g")]], "c/ c/g f"),
    "back within, where a link is": (
        [[directory("d/e"), symlink("l", "d/e")], [regular("l/../f")]],
        "d/ d/e/ f l",
    ),
    "above the root": ([[regular("../../g"), regular("/../h"), regular("a/../../../i")]], "g h i"),
    "only back": ([[directory("a/.."), directory(".."), directory("/"), directory("./")]], ""),
    "a hard link's target": (
        [[regular("f", b"1"), hardlink("a", "/f"), hardlink("b", "../f"), hardlink("/d", "x/../f")]],
        "a b d f",
    ),
    "whiteouts": (
        [[regular("d/a"), regular("b"), regular("e/c"), regular("k")],
         [regular("/d/.wh.a"), regular("../.wh.b"), regular("x/../e/.wh..wh..opq")]],
        "d/ e/ k",
    ),
    "a symbolic link keeps its target": ([[symlink("/s", "../../x"), symlink("t", "/y")]], "s t"),
    "below an absolute name of a link": ([[regular("u/z"), symlink("/l", "/u")], [regular("/l/f")]], "l u/ u/f u/z"),
    "dots in names are names": ([[regular("..."), regular("..x/y"), regular("a..")]], "... ..x/ ..x/y a.."),
}  # fmt: skip


@pytest.mark.only_root
@pytest.mark.parametrize("case", CLEANED)
def test_names_are_cleaned_below_the_root_as_umoci_does(tmp_path: Path, case: str) -> None:
    layers, expected = CLEANED[case]
    outside = sorted(tmp_path.parent.iterdir())
    root, refusal = unpack(tmp_path, layers)
    assert refusal == ""
    with image(tmp_path, *layers) as tree:
        shown = {path: (entry.mode, entry.content) for path, entry in snapshot(tree).items() if path}
    listed = sorted(path.decode() + "/" * stat.S_ISDIR(mode) for path, (mode, _) in shown.items())
    assert " ".join(listed) == expected
    assert shown == {path: (entry.mode, entry.content) for path, entry in disk_snapshot(root).items() if path}
    assert sorted(tmp_path.parent.iterdir()) == outside


def test_cleaned_names_share_their_directories(tmp_path: Path) -> None:
    """The way to the last member's directory is remembered by its spelling."""
    names = ["a/x", "/a/y", "b/../a/z", "a/../b/x", "b/y", "../b/z"]
    with image(tmp_path, [regular(name, name.encode()) for name in names]) as tree:
        assert sorted(rows(tree)) == [b"", b"a", b"a/x", b"a/y", b"a/z", b"b", b"b/x", b"b/y", b"b/z"]
        assert read(tree, find(tree, b"b/x")) == b"a/../b/x"


def test_the_attributes_of_the_root(tmp_path: Path) -> None:
    root = item("./", b"5", mode=0o555, uid=1000, gid=1001, mtime=7)
    root[0].pax_headers = {"SCHILY.xattr.user.a": "1"}
    with image(tmp_path, [root], [regular("f")]) as tree:
        shown = node(tree, 1)
    assert (shown.mode, shown.uid, shown.gid, shown.mtime) == (stat.S_IFDIR | 0o555, 1000, 1001, 7 * 10**9)
    assert shown.xattrs == {b"user.a": b"1"}
