"""A lower that cannot be read: EIO for the bytes that are lost and for nothing else, never a file that is just shorter.

Two real ones. The layer tar of a mounted image is cut. A directory that lies below is itself a mount, whose server
fails READ from an offset on.
"""

from __future__ import annotations

import errno
import mmap
import os
import signal
import tarfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest

from tests.faults.operations import Place
from tests.support.child import errno_in_child
from tests.support.mounted import Mounted
from tests.support.systems import opened, raises
from unionfs import override
from unionfs.image.compiler import compile_image
from unionfs.image.tree import CompiledImage
from unionfs.live.directories import DirectoryStack
from unionfs.open import open_union
from unionfs.serve import ENGINES
from unionfs.tree import Run
from unionfs.union import Busy

LEFT = (1 << 19) + 12288
"""So many bytes of a lost file can still be read. A READ, which reading ahead makes large, fails as a whole."""

SIZES = {"lost": LEFT + 200_000, "lost large": 2_500_000}
"""The copy-up of the second is left to a worker."""

TEXT = b"0123456789abcdef"


def _content(size: int) -> bytes:
    return (TEXT * (size // len(TEXT) + 1))[:size]


class Flaky(DirectoryStack):
    """Live directories of which files called "lost" fail from `LEFT` on while the file `switch` is there."""

    def __init__(self, layer: Path, switch: Path) -> None:
        super().__init__([os.fsencode(layer)])
        self._switch = switch
        self._unreadable = os.open("/proc/self/mem", os.O_RDONLY)  # EIO where nothing is mapped, as at 0

    def locate(self, node: int, offset: int, size: int) -> Run:
        lost = self.names(node)[0][1].startswith(b"lost") and self._switch.exists()
        if lost and offset >= LEFT:
            return Run(self._unreadable, 0, size)
        return super().locate(node, offset, min(size, LEFT - offset) if lost else size)

    def close(self) -> None:
        os.close(self._unreadable)
        super().close()


class Failing:
    """A mount over one lost file and others, of either kind, that can be healed."""

    def __init__(self, base: Path, lower: str, engine: str, name: str) -> None:
        self.engine = engine
        self.name, self.content = name, _content(SIZES[name])
        self._switch = base / "switch"
        self._below: Mounted | None = None
        if lower == "image":
            self._tar, self._index = base / "layer.tar", base / "image.index"
            self._pack()
            self.mounted = Mounted(base, lambda: CompiledImage(self._index, [self._tar]), engine)
        else:
            (base / "below").mkdir()
            self._below = self._mount_below(base)
            layers = [os.fsencode(self._below.target)]
            self.mounted = Mounted(base, lambda: DirectoryStack(layers), engine)
        self.root, self.upper = self.mounted.target, self.mounted.upper
        self.path = self.root / name

    def _pack(self) -> None:
        """The lost file comes last, so that a cut takes nothing else."""
        with tarfile.open(self._tar, "w") as archive:
            for name, data in (("fine", _content(300_000)), ("small", b"small"), (self.name, self.content)):
                info = tarfile.TarInfo(name)
                info.size, info.mode, info.uid, info.gid = len(data), 0o644, os.getuid(), os.getgid()
                archive.addfile(info, BytesIO(data))
        with tarfile.open(self._tar) as archive:
            self._cut = archive.getmember(self.name).offset_data + LEFT
        compile_image([self._tar], self._index)
        self._whole = self._tar.read_bytes()

    def _mount_below(self, base: Path) -> Mounted:
        source = base / "source"
        source.mkdir()
        for name, data in (("fine", _content(300_000)), ("small", b"small"), (self.name, self.content)):
            (source / name).write_bytes(data)
        return Mounted(base / "below", lambda: Flaky(source, self._switch), "direct")

    def mount(self) -> None:
        if self._below is not None:
            self._below.mount()
        self.mounted.mount()

    def unmount(self) -> None:
        self.mounted.unmount()
        if self._below is not None:
            self._below.unmount()

    def break_it(self) -> None:
        if self._below is not None:
            self._switch.touch()
        else:
            os.truncate(self._tar, self._cut)

    def heal(self) -> None:
        if self._below is not None:
            self._switch.unlink()
        else:
            self._tar.write_bytes(self._whole)

    def others_go_on(self) -> None:
        """What is not lost is read, copied up and made as ever."""
        assert (self.root / "small").read_bytes() == b"small"
        assert (self.root / "fine").read_bytes() == _content(300_000)
        with (self.root / "fine").open("r+b") as file:
            file.write(b"changed")
        (self.root / "new").write_bytes(b"new")
        assert (self.root / "fine").read_bytes() == b"changed" + _content(300_000)[7:]


@pytest.fixture(params=[f"{lower}-{engine}" for lower in ("directories", "image") for engine in ENGINES])
def place(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=SIZES)
def failing(request: pytest.FixtureRequest, place: str, tmp_path: Path) -> Iterator[Failing]:
    lower, engine = place.split("-")
    made = Failing(tmp_path, lower, engine, request.param)
    try:
        made.mount()
        made.break_it()
        yield made
    finally:
        made.unmount()


def test_reading(failing: Failing) -> None:
    """What is there can be read, and no way of reading takes the rest for the end of the file."""
    path, size = failing.path, len(failing.content)
    with opened(path) as fd:
        assert os.pread(fd, 4096, 8192) == failing.content[8192 : 8192 + 4096]
        for offset in (LEFT, size - 10, size - 4096):
            with raises(errno.EIO):
                os.pread(fd, 4096, offset)
        assert os.fstat(fd).st_size == size
        assert os.pread(fd, 10, size) == b""
        with opened(Path(os.devnull), os.O_WRONLY) as null, raises(errno.EIO):
            os.sendfile(null, fd, size - 4096, 4096)
    with raises(errno.EIO):
        path.read_bytes()
    assert path.stat().st_size == size
    assert failing.name in os.listdir(failing.root)
    failing.others_go_on()
    failing.heal()
    assert path.read_bytes() == failing.content


def _touch(path: Path, offset: int) -> None:
    with opened(path) as fd, mmap.mmap(fd, 0, prot=mmap.PROT_READ) as view:
        view[offset]


def test_mapping(failing: Failing) -> None:
    """A page that cannot be read is SIGBUS (mmap(2)) for who touches it."""
    assert _ends_by(lambda: _touch(failing.path, 8192)) == 0
    assert _ends_by(lambda: _touch(failing.path, len(failing.content) - 1)) == signal.SIGBUS
    assert _ends_by(lambda: _touch(failing.root / "fine", 200_000)) == 0
    failing.others_go_on()
    failing.heal()
    assert _ends_by(lambda: _touch(failing.path, len(failing.content) - 1)) == 0


def _ends_by(call: Callable[[], object]) -> int:
    """The signal that ends a process which does this, 0 for none; negative for an errno that it gets."""

    def without_faulthandler() -> None:
        signal.signal(signal.SIGBUS, signal.SIG_DFL)  # pytest's would tell of it
        call()

    return -errno_in_child(without_faulthandler)


def _write(path: Path) -> None:
    with opened(path, os.O_WRONLY) as fd:
        os.pwrite(fd, b"CHANGED", 3)


COPYING: dict[str, Callable[[Path], object]] = {
    "write": _write,
    "chmod": lambda path: path.chmod(0o600),
    "times": lambda path: os.utime(path, (5, 5)),
    "chown": lambda path: os.chown(path, os.getuid(), os.getgid()),
    "setxattr": lambda path: os.setxattr(path, "user.one", b"1"),
    "rename": lambda path: path.rename(path.with_name("moved")),
    "link": lambda path: os.link(path, path.with_name("linked")),
    "grow": lambda path: os.truncate(path, 5_000_000),
    "cut within": lambda path: os.truncate(path, LEFT + 100_000),
}


@pytest.mark.parametrize("how", COPYING)
def test_copying_up(failing: Failing, how: str) -> None:
    """Nothing of a copy that is not whole shows: the caller gets EIO, and done again on a whole lower it succeeds."""
    path = failing.path
    before = path.stat()
    with raises(errno.EIO):
        COPYING[how](path)
    after = path.stat()
    assert (after.st_size, after.st_mode, after.st_ino, after.st_nlink) == (
        before.st_size, before.st_mode, before.st_ino, before.st_nlink,
    )  # fmt: skip
    if failing.engine != "pyfuse3":  # with a writeback cache the kernel keeps its own time until it forgets
        assert after.st_mtime_ns == before.st_mtime_ns
    assert sorted(os.listdir(failing.root)) == sorted(["fine", "small", failing.name])
    assert os.listdir(failing.upper) == []
    assert os.listdir(failing.mounted.work / "work") == []
    failing.others_go_on()
    failing.heal()
    failing.mounted.unmount()  # with a writeback cache the kernel goes on showing what it could not write
    failing.mounted.mount()
    assert path.read_bytes() == failing.content
    COPYING[how](path)
    assert failing.name in os.listdir(failing.upper) or how == "rename"


def test_what_needs_no_lost_byte(failing: Failing) -> None:
    """Cutting to what is there, emptying, replacing and removing copy none of what is lost."""
    path = failing.path
    os.truncate(path, LEFT // 4)
    assert path.read_bytes() == failing.content[: LEFT // 4]
    path.write_bytes(b"all new")
    assert path.read_bytes() == b"all new"
    path.unlink()
    assert not path.exists()
    failing.others_go_on()


def test_removing_and_replacing(failing: Failing) -> None:
    (failing.root / "small").rename(failing.path)
    assert failing.path.read_bytes() == b"small"
    failing.path.unlink()
    assert failing.name not in os.listdir(failing.root)


def test_copying_from_it(failing: Failing) -> None:
    """copy_file_range(2) gives what is there and then EIO; 0 would say that the file ends."""
    with opened(failing.path) as source, opened(failing.root / "copy", os.O_RDWR | os.O_CREAT) as target:
        copied = 0
        with raises(errno.EIO):
            while moved := os.copy_file_range(source, target, LEFT // 2, copied, copied):
                copied += moved
        assert copied <= LEFT
        assert os.pread(target, LEFT, 0)[:copied] == failing.content[:copied]
    failing.others_go_on()


@pytest.mark.parametrize("hole", [False, True])
def test_a_live_file_that_shrinks_while_it_is_copied(tmp_path: Path, hole: bool) -> None:
    """What is missing at its end are no zeros, not even where there were zeros. Done again, it has the size of now."""
    for name in ("layer", "upper", "work"):
        (tmp_path / name).mkdir()
    file, size = tmp_path / "layer/f", 2_500_000
    file.write_bytes(b"" if hole else _content(size))
    os.truncate(file, size)
    union = open_union(DirectoryStack([os.fsencode(file.parent)]), str(tmp_path / "upper"), str(tmp_path / "work"))
    try:
        place = Place(union)
        with pytest.raises(Busy) as busy:
            union.write(place.id("f"), 0, b"CHANGED")
        os.truncate(file, size - 5000)
        busy.value.job.work()
        busy.value.job.finish()
        assert busy.value.job.error is not None
        assert busy.value.job.error.errno == errno.EIO
        assert os.listdir(tmp_path / "upper") == os.listdir(tmp_path / "work/work") == []
        place.write("f")
        assert (tmp_path / "upper/f").read_bytes() == b"CHANGED" + file.read_bytes()[7:]
    finally:
        union.close()


class Unseen(DirectoryStack):
    """Live directories where nothing called "unseen" can be looked at. Their listings say so: of type DT_UNKNOWN."""

    def lookup(self, parent: int, name: bytes) -> int:
        _refuse(name)
        return super().lookup(parent, name)

    def entry(self, parent: int, name: bytes) -> bytes | None:
        _refuse(name)
        return super().entry(parent, name)

    def listing(self, node: int, cookie: int, size: int) -> None:
        """None: it is made of lookups."""


def _refuse(name: bytes) -> None:
    if name == b"unseen":
        raise OSError(errno.EIO, "lost", name)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_name_that_cannot_be_looked_at_is_listed(tmp_path: Path, engine: str) -> None:
    source, names = tmp_path / "source", ["dir", "file", "unseen"]
    for above in (source, source / "dir"):
        above.mkdir()
        for name in ("file", "unseen"):
            (above / name).write_bytes(b"content")
    (tmp_path / "below").mkdir()
    below = Mounted(tmp_path / "below", lambda: Unseen([os.fsencode(source)]), "direct")
    mounted = Mounted(tmp_path, lambda: DirectoryStack([os.fsencode(below.target)]), engine)
    root = mounted.target
    try:
        below.mount()
        mounted.mount()
        for _ in range(2):
            assert sorted(os.listdir(root)) == names
            assert sorted(os.listdir(root / "dir")) == names[1:]
            for above in (root, root / "dir"):
                assert (above / "file").read_bytes() == b"content"
                with raises(errno.EIO):
                    (above / "unseen").stat()
            mounted.unmount()
            mounted.mount()
        with raises(errno.ENOTEMPTY):
            (root / "dir").rmdir()
        for above in (root, root / "dir"):  # promoted
            (above / "file").unlink()
        assert sorted(os.listdir(root)) == ["dir", "unseen"]
        assert os.listdir(root / "dir") == ["unseen"]
    finally:
        mounted.unmount()
        below.unmount()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_name_with_a_malformed_override_is_listed(tmp_path: Path, engine: str) -> None:
    layer = tmp_path / "layer"
    layer.mkdir()
    for name in ("file", "bad"):
        (layer / name).write_bytes(b"content")
    for path, text in ((layer, b"5:6:0755"), (layer / "file", b"7:8:0644"), (layer / "bad", b"7:8")):
        os.setxattr(path, override.XATTR, text)
    mounted = Mounted(tmp_path, lambda: DirectoryStack([os.fsencode(layer)]), engine)
    try:
        mounted.mount()
        assert sorted(os.listdir(mounted.target)) == ["bad", "file"]
        assert (mounted.target / "file").stat().st_uid == 7
        with raises(errno.EINVAL):
            (mounted.target / "bad").stat()
    finally:
        mounted.unmount()
