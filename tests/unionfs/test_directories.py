"""One layer and few: names, node ids, attributes, contents, and what changes or may not be read."""

from __future__ import annotations

import errno
import os
import stat
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.layers import Change, make, shown
from unionfs.fuse import wire
from unionfs.live.directories import DirectoryStack
from unionfs.live.inonumbers import InodeNumbers
from unionfs.tree import ROOT

Stack = Callable[..., DirectoryStack]


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """Makes a tree of layers given as lists of changes, topmost first; closed at the end."""
    made: list[DirectoryStack] = []

    def build(*layers: list[Change], **options: Any) -> DirectoryStack:
        base = tmp_path / f"layers{len(made)}"
        base.mkdir()
        paths = [make(base / str(number), *changes) for number, changes in enumerate(layers)]
        made.append(DirectoryStack(paths, **options))
        return made[-1]

    yield build
    before = len(os.listdir("/proc/self/fd"))
    for tree in made:
        tree.close()
    assert len(os.listdir("/proc/self/fd")) < before or not made


def attr(tree: DirectoryStack, node: int) -> wire.Attr:
    return wire.Attr.unpack(tree.attr(node))


def walk(tree: DirectoryStack, path: str) -> int:
    node = ROOT
    for name in path.split("/"):
        node = tree.lookup(node, os.fsencode(name))
        assert node, path
    return node


def read(tree: DirectoryStack, node: int) -> bytes:
    fd, offset, length = tree.locate(node, 0, 1 << 20)
    return os.pread(fd, length, offset)


@contextmanager
def raises(code: int) -> Iterator[None]:
    with pytest.raises(OSError) as caught:
        yield
    assert errno.errorcode[caught.value.errno or 0] == errno.errorcode[code]


def test_upper_layers_win_and_directories_merge(stack: Stack) -> None:
    tree = stack(
        [("file", "both", "top"), ("file", "d/top", "1"), ("dir", "becomes-dir")],
        [("file", "both", "low"), ("file", "d/low", "2"), ("file", "becomes-dir", "x"), ("symlink", "s", "both")],
    )
    assert shown(tree) == {
        "both": ("-", "top"),
        "d": ("d", ""),
        "d/top": ("-", "1"),
        "d/low": ("-", "2"),
        "becomes-dir": ("d", ""),
        "s": ("l", "both"),
    }


def test_contains_does_not_count(stack: Stack) -> None:
    tree = stack([("file", "d/f")], [("file", "d/g")])
    assert tree.contains(ROOT, b"d")
    assert not tree.contains(ROOT, b"e")
    with pytest.raises(OSError, match="Stale"):
        tree.attr(ROOT + 1)


def test_attributes_are_the_hosts(stack: Stack, tmp_path: Path) -> None:
    tree = stack([("file", "f", "content"), ("dir", "d/e")])
    path = tmp_path / "layers0/0/f"
    path.chmod(0o4751)
    os.utime(path, ns=(-1_500_000_000, 1_700_000_000_123_456_789))
    status, shown = path.stat(), attr(tree, walk(tree, "f"))
    assert shown.mode == status.st_mode
    assert (shown.size, shown.blocks, shown.nlink) == (7, status.st_blocks, 1)
    assert (shown.atime, shown.atimensec) == (-2, 500_000_000)
    assert (shown.mtime, shown.mtimensec) == (1_700_000_000, 123_456_789)
    assert shown.ino == status.st_ino
    assert attr(tree, walk(tree, "d")).nlink == (path.parent / "d").stat().st_nlink
    assert attr(tree, ROOT).ino == path.parent.stat().st_ino


@pytest.mark.only_root
def test_owners_and_devices_are_the_hosts(stack: Stack, tmp_path: Path) -> None:
    tree = stack([("file", "f"), ("fifo", "p")])
    layer = tmp_path / "layers0/0"
    os.chown(layer / "f", 1234, 4321)
    os.mknod(layer / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    assert (attr(tree, walk(tree, "f")).uid, attr(tree, walk(tree, "f")).gid) == (1234, 4321)
    assert wire.decode_rdev(attr(tree, walk(tree, "null")).rdev) == (1, 3)
    assert {entry.name: entry.type for entry in tree.entries(ROOT)} == {b"f": 8, b"p": 1, b"null": 2}


def test_hard_links_share_a_node_also_across_layers(stack: Stack, tmp_path: Path) -> None:
    tree = stack([("dir", "d")], [("file", "a", "x"), ("link", "b", "a")])
    os.link(tmp_path / "layers0/1/a", tmp_path / "layers0/0/d/c")
    node, directory = tree.lookup(ROOT, b"a"), tree.lookup(ROOT, b"d")
    assert tree.lookup(ROOT, b"b") == node == tree.lookup(directory, b"c")
    assert sorted(tree.names(node)) == [(ROOT, b"a"), (ROOT, b"b"), (directory, b"c")]
    assert attr(tree, node).nlink == 3
    (tmp_path / "layers0/1/a").unlink()
    assert read(tree, node) == b"x"


def test_names_of_directories(stack: Stack) -> None:
    tree = stack([("dir", "d/e")])
    below = walk(tree, "d/e")
    (parent, name), *others = tree.names(below)
    assert name == b"e"
    assert not others
    assert tree.names(parent) == [(ROOT, b"d")]
    assert tree.names(ROOT) == []


def test_forgetting_gives_ids_up_but_keeps_the_way_to_what_is_known(stack: Stack) -> None:
    tree = stack([("file", "d/e/f", "x")])
    d = tree.lookup(ROOT, b"d")
    e = tree.lookup(d, b"e")
    f = tree.lookup(e, b"f")
    tree.remember(f)
    tree.forget(d, 1)
    tree.forget(e, 1)
    tree.forget(f, 1)
    assert read(tree, f) == b"x"
    assert tree.lookup(ROOT, b"d") == d
    tree.forget(d, 1)
    tree.forget(f, 1)
    for node in (d, e, f):
        with pytest.raises(OSError, match="Stale"):
            tree.attr(node)
    assert tree.lookup(ROOT, b"d") > f
    assert tree.owns(tree.lookup(ROOT, b"d"))


def test_forgetting_closes_descriptors(stack: Stack) -> None:
    tree = stack([("file", "d/f", "x")])
    before = os.listdir("/proc/self/fd")
    d = tree.lookup(ROOT, b"d")
    f = tree.lookup(d, b"f")
    read(tree, f)
    tree.forget(f, 1)
    tree.forget(d, 1)
    assert os.listdir("/proc/self/fd") == before


def test_symlinks_are_not_followed(stack: Stack, tmp_path: Path) -> None:
    """Neither one that was there, nor one that takes the place of a known file or directory."""
    outside = tmp_path / "outside"
    make(outside, ("file", "f", "secret"))
    tree = stack([("symlink", "l", str(outside)), ("file", "f", "x"), ("file", "d/f", "x")])
    link, file, directory = (tree.lookup(ROOT, name) for name in (b"l", b"f", b"d"))
    assert tree.readlink(link) == os.fsencode(outside)
    with raises(errno.ENOTDIR):
        tree.lookup(link, b"f")
    layer = tmp_path / "layers0/0"
    (layer / "f").unlink()
    (layer / "f").symlink_to(outside / "f")
    with raises(errno.ESTALE):
        tree.locate(file, 0, 10)
    (layer / "d/f").unlink()
    (layer / "d").rmdir()
    (layer / "d").symlink_to(outside)
    assert tree.lookup(directory, b"f") == 0


@pytest.mark.parametrize("name", [b"", b".", b"..", b"../outside", b"a/b", b"a\0b"])
def test_what_is_no_name_is_refused(stack: Stack, name: bytes) -> None:
    with raises(errno.EINVAL):
        stack([]).lookup(ROOT, name)


def test_long_names(stack: Stack) -> None:
    tree = stack([("file", "n" * 255)], [("dir", "m" * 255)])
    assert tree.lookup(ROOT, b"n" * 255)
    assert tree.lookup(ROOT, b"m" * 255)
    assert not tree.lookup(ROOT, b"o" * 255)
    with raises(errno.ENAMETOOLONG):
        tree.lookup(ROOT, b"n" * 256)


def test_deep_directories_with_few_descriptors(tmp_path: Path, stack: Stack) -> None:
    """5,000 levels: no path reaches that far, no recursion either, and descriptors are found again."""
    depth, fd = 5000, os.open(tmp_path, os.O_PATH)
    for _ in range(depth):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_PATH, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    tree = DirectoryStack([os.fsencode(tmp_path)])
    try:
        tree._pool.limit = 16
        nodes = [ROOT]
        for _ in range(depth):
            nodes.append(tree.lookup(nodes[-1], b"d"))
        file = tree.lookup(nodes[-1], b"f")
        assert len(os.listdir("/proc/self/fd")) < 100
        assert [entry.name for entry in tree.entries(nodes[depth // 2])] == [b"d"]
        assert stat.S_ISREG(attr(tree, file).mode)
        for node in reversed([*nodes[1:], file]):
            tree.forget(node, 1)
        with pytest.raises(OSError, match="Stale"):
            tree.attr(nodes[1])
    finally:
        tree.close()
        _remove_deep(tmp_path, depth)


def _remove_deep(top: Path, depth: int) -> None:
    """shutil.rmtree would recurse. What is moved to the top leaves an empty directory behind."""
    base = os.open(top, os.O_PATH)
    for number in range(depth):
        try:
            os.rename("d/d", f"{number}", src_dir_fd=base, dst_dir_fd=base)
        except FileNotFoundError:
            break
        os.rmdir("d", dir_fd=base)
        os.rename(f"{number}", "d", src_dir_fd=base, dst_dir_fd=base)
    os.unlink("d/f", dir_fd=base)
    os.rmdir("d", dir_fd=base)
    os.close(base)


def test_cookies_stay_with_their_names(stack: Stack, tmp_path: Path) -> None:
    tree = stack([("file", name) for name in "abcdef"])
    layer = tmp_path / "layers0/0"
    first = {entry.name: entry.cookie for entry in tree.entries(ROOT)}
    assert sorted(first) == [b"a", b"b", b"c", b"d", b"e", b"f"]
    assert list(first.values()) == sorted(set(first.values()))
    middle = list(first.values())[2]
    rest = [name for name, cookie in first.items() if cookie > middle]
    (layer / "a").unlink()
    (layer / "g").touch()
    again = {entry.name: entry.cookie for entry in tree.entries(ROOT)}
    assert {name: again[name] for name in again if name in first} == {
        name: first[name] for name in first if name != b"a"
    }
    assert again[b"g"] < min(first.values())
    assert [e.name for e in tree.entries(ROOT, middle)] == [n for n in rest if n != b"a"]
    (layer / "a").touch()
    assert {entry.name: entry.cookie for entry in tree.entries(ROOT)}[b"a"] < again[b"g"]
    assert list(tree.entries(ROOT, 1 << 40)) == []


def test_a_listing_in_parts_takes_linear_time(stack: Stack, tmp_path: Path) -> None:
    """As the kernel asks: some entries at a time. A quadratic listing would not end."""
    tree = stack([])
    layer, count = tmp_path / "layers0/0", 20_000
    fd = os.open(layer, os.O_PATH)
    for number in range(count):
        os.mknod(f"{number}", stat.S_IFREG | 0o600, dir_fd=fd)
    os.close(fd)
    seen, cookie = set(), 0
    while part := [entry for entry, _ in zip(tree.entries(ROOT, cookie), range(20), strict=False)]:
        seen.update(entry.name for entry in part)
        cookie = part[-1].cookie
    assert len(seen) == count


def test_has_entries(stack: Stack) -> None:
    tree = stack([("dir", "empty"), ("device", "gone/f"), ("file", "full/f")], [("file", "gone/f")])
    assert not tree.has_entries(walk(tree, "empty"))
    assert not tree.has_entries(walk(tree, "gone"))
    assert tree.has_entries(walk(tree, "full"))


def test_vanished_files(stack: Stack, tmp_path: Path) -> None:
    tree = stack([("file", "open", "content"), ("file", "f", "x"), ("file", "d/f")])
    layer = tmp_path / "layers0/0"
    opened, file, below = walk(tree, "open"), walk(tree, "f"), walk(tree, "d/f")
    directory = tree.lookup(ROOT, b"d")
    assert read(tree, opened) == b"content"
    for name in ("open", "f", "d/f"):
        (layer / name).unlink()
    (layer / "d").rmdir()
    assert read(tree, opened) == b"content"
    attr(tree, opened)
    for node in (file, below):
        attr_of_lookup = tree._recent
        assert attr_of_lookup is None or attr_of_lookup[0] != node
        with raises(errno.ENOENT):
            tree.attr(node)
        with raises(errno.ENOENT):
            tree.locate(node, 0, 1)
    assert tree.lookup(directory, b"f") == 0
    assert tree.lookup(ROOT, b"d") == 0


def test_a_replaced_file_is_stale_and_its_name_a_new_node(stack: Stack, tmp_path: Path) -> None:
    tree = stack([("file", "f", "old")])
    path = tmp_path / "layers0/0/f"
    node = walk(tree, "f")
    tree.attr(node)
    (path.parent / "new").write_text("new")
    (path.parent / "new").rename(path)
    with raises(errno.ESTALE):
        tree.attr(node)
    with raises(errno.ESTALE):
        tree.locate(node, 0, 1)
    again = walk(tree, "f")
    assert again != node
    assert read(tree, again) == b"new"


def test_a_file_that_shrank_reads_short(stack: Stack, tmp_path: Path) -> None:
    tree = stack([("file", "f", "0123456789")])
    node = walk(tree, "f")
    os.truncate(tmp_path / "layers0/0/f", 4)
    assert read(tree, node) == b"0123"


def test_directories_are_not_files(stack: Stack) -> None:
    tree = stack([("dir", "d"), ("file", "f")])
    for call in (tree.readlink, lambda node: tree.locate(node, 0, 1)):
        with raises(errno.EISDIR):
            call(walk(tree, "d"))
    for method in (tree.has_entries, tree.entries):
        with raises(errno.ENOTDIR):
            method(walk(tree, "f"))


def test_reading_leaves_no_trace_in_the_access_time(stack: Stack, tmp_path: Path) -> None:
    tree = stack([("file", "f", "x")])
    path = tmp_path / "layers0/0/f"
    os.utime(path, (1, 2))
    read(tree, walk(tree, "f"))
    assert path.stat().st_atime == 1


def test_xattrs_without_marks(stack: Stack) -> None:
    tree = stack(
        [
            ("file", "f"),
            ("xattr", "f", "user.one", "1"),
            ("xattr", "f", "user.overlay.origin", "x"),
            ("xattr", "f", "user.ufs.origin", "x"),
            ("xattr", "f", "user.containers.override_stat", "0:0:0644"),
            ("dir", "d"),
            ("xattr", "d", "user.two", ""),
            ("symlink", "l", "f"),
        ]
    )
    assert tree.xattrs(walk(tree, "f")) == {b"user.one": b"1"}
    assert tree.xattrs(walk(tree, "d")) == {b"user.two": b""}
    assert tree.xattrs(walk(tree, "l")) == {}
    assert tree.xattrs(ROOT) == {}


def test_hidden_files_do_not_exist(tmp_path: Path) -> None:
    layer = make(tmp_path / "layer", ("file", "store/f"), ("dir", "other"), ("file", "f"))
    store = os.stat(tmp_path / "layer/store")
    tree = DirectoryStack([layer], hide=[(store.st_dev, store.st_ino)])
    try:
        assert shown(tree).keys() == {"other", "f"}
        assert tree.lookup(ROOT, b"store") == 0
        assert not tree.contains(ROOT, b"store")
    finally:
        tree.close()


def test_skipped_paths_are_not_touched(tmp_path: Path) -> None:
    layer = make(tmp_path / "layer", ("dir", "a/mount"), ("dir", "mount"))
    tree = DirectoryStack([layer], skip=[layer + b"/a/mount"])
    try:
        assert shown(tree).keys() == {"a", "mount"}
        assert tree.lookup(walk(tree, "a"), b"mount") == 0
    finally:
        tree.close()


@pytest.mark.only_root
def test_what_may_not_be_read(stack: Stack, tmp_path: Path) -> None:
    tree = stack([("file", "d/f", "x"), ("file", "open/f", "x")])
    layer = tmp_path / "layers0/0"
    (layer / "d").chmod(0o711)
    (layer / "d/f").chmod(0o600)
    (layer / "open").chmod(0o700)
    for path in (layer, *layer.parents):
        if path == tmp_path.parent.parent:
            break
        path.chmod(0o755)
    d, closed = walk(tree, "d"), walk(tree, "open")
    os.seteuid(65534)
    try:
        file = tree.lookup(d, b"f")
        assert attr(tree, file).size == 1
        with raises(errno.EACCES):
            tree.locate(file, 0, 1)
        with raises(errno.EACCES):
            tree.entries(d)
        with raises(errno.EACCES):
            tree.lookup(closed, b"f")
    finally:
        os.seteuid(0)


def test_the_hosts_root_is_a_tree() -> None:
    """Submounts are crossed: /proc is another device than /."""
    tree = DirectoryStack([b"/"])
    try:
        names = {entry.name for entry in tree.entries(ROOT)}
        assert {b"proc", b"etc", b"usr"} <= names
        own = walk(tree, f"proc/{os.getpid()}")
        assert {entry.name for entry in tree.entries(own)} >= {b"fd", b"root", b"status"}
        assert read(tree, walk(tree, f"proc/{os.getpid()}/comm")) == Path("/proc/self/comm").read_bytes()
        assert attr(tree, walk(tree, "etc")).ino == os.stat("/etc").st_ino
        assert attr(tree, own).ino >> 31
    finally:
        tree.close()


def test_devices_have_numbers_of_their_own(tmp_path: Path) -> None:
    shared = Path("/dev/shm") / f"ufs-test-{os.getpid()}"
    try:
        low = make(shared, ("file", "low"), ("file", "d/f"))
        top = make(tmp_path / "top", ("file", "top"), ("dir", "d"))
        tree = DirectoryStack([top, low])
        assert attr(tree, walk(tree, "top")).ino == os.stat(tmp_path / "top/top").st_ino
        assert attr(tree, walk(tree, "low")).ino == 1 << 31 | os.stat(shared / "low").st_ino
        assert attr(tree, walk(tree, "d")).ino == os.stat(tmp_path / "top/d").st_ino
        device = os.stat(tmp_path).st_dev
        assert tree.foreign_ino(device, 77) == 77
        assert tree.foreign_ino(0xFFFF, 77) == 0xC0000000 | 77
        assert tree.foreign_ino(0xFFFF, 1 << 40) == 2 << 48 | 1 << 40
        assert tree.foreign_ino(device, 1 << 60 | 77) < 1 << 48
        assert tree.statvfs().f_bsize > 0
        tree.close()
    finally:
        for name in ("low", "d/f"):
            (shared / name).unlink()
        (shared / "d").rmdir()
        shared.rmdir()


def test_numbers_of_devices_never_meet() -> None:
    """At the borders of each one's share, and small ones below 2**32."""
    numbers = InodeNumbers()
    inos = [1, 2, 77, *(1 << bits for bits in range(8, 47)), *((1 << bits) - 1 for bits in range(8, 47))]
    inos = sorted({*inos, *(ino + 5 for ino in inos)})
    shown = {(device, ino): numbers.shown(device, ino) for device in range(40) for ino in inos}
    assert len(set(shown.values())) == len(shown)
    assert all(0 < number < 1 << 64 for number in shown.values())
    for (device, ino), number in shown.items():
        assert (number < 1 << 32) == (device < 31 and ino < 1 << 31 - device)
        if not device and ino >> 31 != 1:
            assert number == ino


def test_known_files_take_little_memory(stack: Stack, tmp_path: Path) -> None:
    tree = stack([("dir", f"d{number}") for number in range(20)])
    count = 10_000
    for number in range(count):
        os.mknod(tmp_path / f"layers0/0/d{number % 20}/name-of-usual-length-{number}", stat.S_IFREG | 0o600)
    tracemalloc.start()
    try:
        for directory in tree.entries(ROOT):
            node = tree.lookup(ROOT, directory.name)
            for entry in tree.entries(node):
                tree.attr(tree.lookup(node, entry.name))
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used / count < 500


def test_a_missing_layer(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with raises(errno.ENOENT):
        DirectoryStack([os.fsencode(tmp_path), b"/nonexistent"])
    with raises(errno.ENOTDIR):
        DirectoryStack([os.fsencode(tmp_path), b"/etc/passwd"])
    assert os.listdir("/proc/self/fd") == before


def test_directories_of_which_something_is_hidden_count_no_links(tmp_path: Path) -> None:
    layer = make(tmp_path / "layer", ("dir", "a/hidden"), ("dir", "b/skipped"), ("dir", "c/d"))
    hidden, holds = (os.stat(tmp_path / "layer" / name) for name in ("a/hidden", "a"))
    tree = DirectoryStack(
        [layer],
        hide=[(hidden.st_dev, hidden.st_ino)],
        hold=[(holds.st_dev, holds.st_ino)],
        skip=[layer + b"/b/skipped"],
    )
    try:
        shown = [attr(tree, walk(tree, name)).nlink for name in ("a", "b", "c")]
        assert shown == [1, 1, os.stat(tmp_path / "layer/c").st_nlink]
    finally:
        tree.close()
