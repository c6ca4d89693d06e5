"""An image of eight layers with everything that a layer may hold, and every way to replace it."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path

from tests.images import tools

PRIVILEGED = os.geteuid() == 0
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service, permitted and effective

ODD_NAMES = [
    b"with space", b"new\nline", b"tab\there", b"\xff\xfenot utf-8", "\u00fcn\u00efc\u00f6de-\u65e5\u672c".encode(),
    b"-dash", b"*?[a-z]", b"back\\slash", b"quote'\"", b".hidden",
    b"..dots", b"trailing.", b"x" * 255, b"~", b"#", b"wh.not-a-mark",
]  # fmt: skip
TIMES = {
    "epoch": 0, "one": 1, "old": 86400, "before-1970": -315619200, "last-32-bit": 2**31 - 1, "year-2100": 4102444800,
}  # fmt: skip
MTIME_NS = 1_500_000_000_123_456_789
DEVICES = {"null": (0o020666, 1, 3), "loop": (0o060660, 7, 0), "large": (0o060600, 259, 1048575)}


def write(path: Path, data: bytes | str = b"", mode: int = 0o644) -> Path:
    """A file with its parents."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    path.chmod(mode)
    return path


def lower(root: Path) -> None:
    """Layer 1: every kind of file."""
    files(root)
    links(root)
    attributes(root)
    if PRIVILEGED:
        owners_and_devices(root)
    to_be_replaced(root)


def files(root: Path) -> None:
    write(root / "etc/config", "first\n")
    write(root / "empty")
    write(root / "large", bytes(range(256)) * 5000)
    for mode in (0o000, 0o400, 0o600, 0o4755, 0o2755, 0o6711, 0o1644, 0o777):
        write(root / f"modes/{mode:04o}", f"{mode:o}", mode)
    for mode in (0o700, 0o1777, 0o2775):
        (root / f"modes/dir-{mode:04o}").mkdir()
        (root / f"modes/dir-{mode:04o}").chmod(mode)
    for name in ODD_NAMES:
        folder = os.fsencode(root / "odd")
        os.makedirs(folder, exist_ok=True)
        Path(os.fsdecode(folder + b"/" + name)).write_bytes(name)
    os.mkdir(os.fsencode(root / "odd") + b"/\xe9dir")
    deep = root / "/".join(["deep" * 12] * 60)
    make_deep(root, [b"deep" * 12] * 60)
    assert len(os.fsencode(deep)) > 2900
    with open(write(root / "sparse"), "wb") as sparse:
        sparse.seek(1 << 20)
        sparse.write(b"middle")
        sparse.truncate(3 << 20)
    os.mkfifo(root / "fifo")
    (root / "fifo").chmod(0o622)


def make_deep(root: Path, names: list[bytes]) -> None:
    """Directories below each other, made relative to descriptors: the whole path may be long."""
    fd = os.open(root, os.O_PATH)
    for name in names:
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_PATH, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=fd))
    os.close(fd)


def links(root: Path) -> None:
    one = write(root / "links/one", "linked")
    for name in ("links/two", "other/three", "other/deeper/four"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(one, root / name)
    os.link(write(root / "links/pair-a", "pair"), root / "links/pair-b")
    os.link(root / "fifo", root / "links/fifo")
    for name, target in {
        "relative": "one", "absolute": "/etc/config", "dangling": "/no/such/file", "loop": "loop", "up": "../links",
        "odd": "with space\nand line", "long": "y/" * 500, "escape": "../../../../../../etc/passwd",
    }.items():  # fmt: skip
        (root / "links" / f"symlink-{name}").symlink_to(target)


def attributes(root: Path) -> None:
    plain = write(root / "xattrs/file", "with attributes")
    os.setxattr(plain, "user.text", b"value")
    os.setxattr(plain, "user.binary", bytes(range(256)))
    os.setxattr(plain, "user.empty", b"")
    os.setxattr(root / "xattrs", "user.of-directory", b"here")
    if PRIVILEGED:
        os.setxattr(write(root / "xattrs/capable", "x", 0o755), "security.capability", CAPABILITY)
        os.setxattr(write(root / "xattrs/trusted"), "trusted.thing", b"trusted")
    for name, seconds in TIMES.items():
        os.utime(write(root / "times" / name, name), (seconds, seconds))
    os.utime(write(root / "times/nanoseconds"), ns=(MTIME_NS, MTIME_NS))
    (root / "times/directory").mkdir()
    os.utime(root / "times/directory", (1234567890, 1234567890))
    (root / "times/link").symlink_to("directory")
    os.utime(root / "times/link", (987654321, 987654321), follow_symlinks=False)


def owners_and_devices(root: Path) -> None:
    for name, ids in {"user": (1000, 1000), "nobody": (65534, 65534), "huge": (1234567, 7654321)}.items():
        os.chown(write(root / "owners" / name, name), *ids)
    (root / "owners/dir").mkdir()
    os.chown(root / "owners/dir", 33, 34)
    (root / "owners/link").symlink_to("user")
    os.lchown(root / "owners/link", 1001, 1002)
    setid = write(root / "owners/setid", "s")
    os.chown(setid, 12, 13)
    setid.chmod(0o6755)  # after chown, which clears these bits
    (root / "devices").mkdir()
    for name, (mode, major, minor) in DEVICES.items():
        os.mknod(root / "devices" / name, mode, os.makedev(major, minor))
        (root / "devices" / name).chmod(mode & 0o7777)


def to_be_replaced(root: Path) -> None:
    """What the layers above delete and replace."""
    for name in ("deleted/file", "deleted/tree/a/b", "deleted/link-target", "turned/dir-to-file/inner"):
        write(root / name, name)
    for name in ("dir-to-link/inner", "file-to-dir", "file-to-link", "link-target/inner", "content", "metadata"):
        write(root / "turned" / name, name)
    (root / "turned/link-to-dir").symlink_to("link-target")
    (root / "turned/link-to-file").symlink_to("content")
    for name in ("opaque/old", "opaque/below/old", "opaque/both", "whiteout/gone", "whiteout/kept"):
        write(root / name, name)
    for name in ("links/break-a", "links/delete-a"):
        os.link(write(root / name, name), root / f"{name[:-1]}b")


def replaced(root: Path) -> None:
    """Layer 2: deletions, and files, directories and links in each other's place."""
    (root / "deleted/file").unlink()
    shutil.rmtree(root / "deleted/tree")
    turned = root / "turned"
    for name in ("dir-to-file", "dir-to-link"):
        shutil.rmtree(turned / name)
    for name in ("file-to-dir", "file-to-link", "link-to-dir", "link-to-file", "content"):
        (turned / name).unlink()
    write(turned / "dir-to-file", "now a file")
    # umoci writes a whiteout of dir-to-link/inner after the link; unpacked, it deletes link-target/inner instead.
    (turned / "dir-to-link").symlink_to("link-target")
    write(turned / "file-to-dir/inner", "now in a directory")
    (turned / "file-to-link").symlink_to("content")
    write(turned / "link-to-dir/own", "a directory of its own")
    write(turned / "link-to-file", "now a file")
    write(turned / "content", "other content")
    (turned / "metadata").chmod(0o600)
    (root / "links/delete-b").unlink()
    (root / "links/break-b").unlink()
    write(root / "links/break-b", "on its own")


def again(root: Path) -> None:
    """Layer 3: what was deleted comes back, as something else."""
    write(root / "deleted/tree/a", "a file where a directory was")
    write(root / "deleted/file", "back")
    write(root / "etc/config", "third\n")


def build(into: Path) -> None:
    """The forms of `tools.convert_all`, tag tricky."""
    layout = into / "umoci"
    image = tools.new_layout(layout, "tricky")
    for number, change in enumerate((lower, replaced, again)):
        tools.repack(image, change, into / f"bundle{number}")
    scratch = into / "scratch"
    write(scratch / "opaque/new", "new")
    write(scratch / "opaque/both", "from above")
    insert = ["umoci", "insert", *tools.rootless(), "--image", image]
    tools.run(*insert, "--opaque", scratch / "opaque", "/opaque")
    tools.run(*insert, "--whiteout", "/whiteout/gone")
    tar_layers(image, scratch)
    tools.convert_all(layout, "tricky", into)
    tools.run("rm", "-rf", scratch)


def write_pieces(path: Path, count: int = 40) -> None:
    """A file of so many short pieces with 64 KiB between them, and a hole at the end."""
    with open(write(path), "wb") as sparse:
        for position in range(0, count << 16, 1 << 16):
            sparse.seek(position)
            sparse.write(b"piece of %d" % position)
        sparse.truncate(count + 1 << 16)


def tar_layers(image: str, scratch: Path) -> None:
    """Layers by GNU tar: both of its formats, sparse files, a link into a lower layer, implied parents.

    In its old format not sparse, since umoci does not know that type; see `tests.images.sparse`.
    """
    tree = scratch / "gnu"
    write_pieces(tree / "gnu/sparse")
    write(tree / "gnu" / ("long name " * 12), "long")
    (tree / "gnu/long-link").symlink_to("z" * 300)
    tar = scratch / "gnu.tar"
    tools.run("tar", "--format=gnu", "-cf", tar, "-C", tree, "gnu")
    tools.add_layer(image, tar)

    tree = scratch / "pax"
    shutil.copytree(scratch / "gnu/gnu", tree / "pax", symlinks=True)
    tools.run("cp", "--sparse=always", scratch / "gnu/gnu/sparse", tree / "pax/sparse")
    nanoseconds = write(tree / "pax/nanoseconds", "precise")
    os.setxattr(nanoseconds, "user.by-tar", b"yes")
    os.utime(nanoseconds, ns=(MTIME_NS, MTIME_NS))
    tar = scratch / "pax.tar"
    tools.run("tar", "--format=pax", "--sparse", "--xattrs", "--xattrs-include=*", "-cf", tar, "-C", tree, "./pax")
    tools.add_layer(image, tar)

    tree = scratch / "linked"
    write(tree / "etc/config", "third\n")
    (tree / "implied/parents").mkdir(parents=True)
    os.link(tree / "etc/config", tree / "implied/parents/config")
    write(tree / "implied/parents/file", "file")
    tar = scratch / "linked.tar"
    members = ["etc/config", "implied/parents/config", "implied/parents/file"]
    tools.run("tar", "--format=ustar", "-cf", tar, "-C", tree, *members)
    tools.run("tar", "--delete", "-f", tar, "etc/config")
    tools.add_layer(image, tar)
