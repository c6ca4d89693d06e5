"""Where an image comes from: an archive or a layout directory, its members addressed by exact name.

Nothing here writes a file under a name that an archive chose. Links inside an archive (`docker save` uses
them for layers that occur twice) are followed inside the archive only.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from launcher.errors import UfsError
from launcher.image import looks, typed
from launcher.image.compression import detect, inflate
from launcher.image.workspace import Workspace
from unionfs.image.errors import CutError, LayerError
from unionfs.image.header import BLOCK
from unionfs.image.layer import LayerReader, Member

_MAX_MEMBERS = 200_000
_MAX_LINKS = 16
_CHUNK = 1 << 20


class Cancelled(Exception):
    """Nobody wants these bytes any more: another layer failed, and its error is the one to show."""


class Bytes(Protocol):
    """The bytes of a layer, wherever they are.

    `path` is a file that holds nothing else and may be moved into the store, or None where they have to be copied.
    """

    size: int
    path: str | None

    def read(self, at: int, size: int) -> bytes:
        """At most `size` bytes from `at` on; none at the end. May wait for them; raises why they do not come."""

    def descriptor_of_file(self) -> int:
        """A descriptor of `path`, owned by who asks."""

    def spoiled(self) -> None:
        """They are not what they should be."""

    def abandon(self) -> None:
        """Let every `read` that waits raise `Cancelled`."""


class Blob:
    """Bytes of an open file: `size` at `offset`. The descriptor belongs to the source."""

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self.fd = fd
        self.offset = offset
        self.size = size
        self.path: str | None = None

    def read(self, at: int, size: int) -> bytes:
        """See `Bytes`."""
        return os.pread(self.fd, min(size, max(0, self.size - at)), self.offset + at)

    def descriptor_of_file(self) -> int:
        """See `Bytes`."""
        return os.dup(self.fd)

    def spoiled(self) -> None:
        """The source is the user's own; it stays as it is."""

    def abandon(self) -> None:
        """Nothing waits here."""


class Source(Protocol):
    """Named members of an archive or a directory. Errors are UfsErrors that name the source."""

    label: str
    is_directory: bool
    cut: bool
    """Whether it ends without saying that it is complete, so that what is missing may have been cut off."""

    def find(self, name: str) -> Blob | None:
        """The bytes of a member, or None where there is none."""

    def top(self) -> set[str]:
        """The first components of all names."""


def advice(source: Source, otherwise: str) -> str:
    """What to do where a member is missing: `otherwise` where the source is whole."""
    return "the archive ends without its end mark: it was cut, save or copy it again" if source.cut else otherwise


def missing(source: Source, what: str, otherwise: str) -> UfsError:
    """A member is not there; see `advice`."""
    return UfsError(f"{what}; {advice(source, otherwise)}")


def read(source: Source, name: str) -> bytes | None:
    """A small member as a whole, or None where there is none."""
    blob = source.find(name)
    if blob is None:
        return None
    if blob.size > typed.MAX_DOCUMENT:
        limit = f"the limit for a JSON document is {typed.MAX_DOCUMENT}"
        raise UfsError(f"{source.label}: {name} has {blob.size} bytes, {limit}; is this an image?")
    data = blob.read(0, blob.size)
    if len(data) != blob.size:
        raise UfsError(f"{source.label}: {name} ends early; the file is truncated, copy it again")
    return data


class TarSource:
    """An uncompressed tar. Its members are listed once; their bytes are read in place."""

    is_directory = False

    def __init__(self, fd: int, label: str) -> None:
        self.label = label
        self._fd = fd
        self._members: dict[str, Member] = {}
        reader = LayerReader(fd, label)
        try:
            for member in reader:
                self._members[_plain(os.fsdecode(member.name))] = member
                if len(self._members) > _MAX_MEMBERS:
                    raise UfsError(f"{label} has more than {_MAX_MEMBERS} members; is this an image?")
        except LayerError as error:
            reason = str(error).removeprefix("layer ")
            if isinstance(error, CutError) and os.fstat(fd).st_size >= BLOCK:
                raise UfsError(f"{reason}; it was cut (truncated): save or copy it again") from None
            if not self._members:
                meaning = looks.file(os.pread(fd, BLOCK, 0))
                if meaning:
                    raise UfsError(f"{label} is {meaning}") from None
                raise UfsError(
                    f"{label} is not an archive; give what docker save, podman save or skopeo copy wrote"
                ) from None
            raise UfsError(f"{reason}; the archive is damaged, save or copy it again") from None
        self.cut = not reader.complete

    def top(self) -> set[str]:
        """The first components of all names."""
        return {name.partition("/")[0] for name in self._members}

    def find(self, name: str) -> Blob | None:
        """The bytes of a member; links are followed, to names inside the archive only."""
        at = first = _plain(name)
        for _ in range(_MAX_LINKS):
            member = self._members.get(at)
            if member is None:
                if at != first:
                    raise UfsError(f"{self.label}: {name} is a link to {at!r}, which is not in the archive")
                return None
            if stat.S_ISREG(member.mode):
                if member.extents is not None:
                    raise UfsError(f"{self.label}: {name} is stored sparse; make the archive without --sparse")
                return Blob(self._fd, member.data, member.size)
            link = os.fsdecode(member.link)
            if stat.S_ISLNK(member.mode):
                at = _plain(posixpath.join(posixpath.dirname(at), link))
            elif member.mode == 0:
                at = _plain(link)
            else:
                raise UfsError(f"{self.label}: {name} is not a file")
        raise UfsError(f"{self.label}: {name} is a link to itself")


class DirectorySource:
    """A directory, as an OCI layout. Symbolic links are not followed: they could name any file."""

    is_directory = True
    cut = False

    def __init__(self, fd: int, label: str) -> None:
        self.label = label
        self._fd = fd
        self._open: list[int] = []

    def top(self) -> set[str]:
        """The names in it."""
        return set(os.listdir(self._fd))

    def find(self, name: str) -> Blob | None:
        """The bytes of a file beneath the directory."""
        directory = self._fd
        *parents, last = _plain(name).split("/")
        opened: list[int] = []
        try:
            for part in parents:
                directory = self._enter(directory, part, os.O_PATH | os.O_DIRECTORY)
                opened.append(directory)
            # A fifo must not block, so no waiting; it is refused below.
            fd = self._enter(directory, last, os.O_RDONLY | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        finally:
            for parent in opened:
                os.close(parent)
        self._open.append(fd)
        state = os.fstat(fd)
        if not stat.S_ISREG(state.st_mode):
            raise UfsError(f"{self.label}: {name} is not a file")
        return Blob(fd, 0, state.st_size)

    def _enter(self, directory: int, name: str, flags: int) -> int:
        try:
            return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        except FileNotFoundError:
            raise
        except OSError as error:
            hint = "symbolic links in a layout are not followed (cp -rL makes a copy without)"
            raise UfsError(f"{self.label}: {name}: {error.strerror}; {hint}") from None

    def close(self) -> None:
        """Close what `find` opened."""
        for fd in self._open:
            os.close(fd)
        self._open.clear()


@contextmanager
def opened(path: str, workspace: Workspace) -> Iterator[tuple[Source, str]]:
    """The source at `path` (``-`` is standard input) and its `key`: see `identify`."""
    label = "standard input" if path == "-" else path
    fd = os.dup(0) if path == "-" else os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        state = os.fstat(fd)
        if stat.S_ISDIR(state.st_mode):
            directory = DirectorySource(fd, label)
            try:
                yield directory, identify(path)
            finally:
                directory.close()
            return
        key = identify(path) if path != "-" else ""
        os.set_blocking(fd, True)
        tar = _uncompressed(fd, label, workspace) if stat.S_ISREG(state.st_mode) else _spooled(fd, label, workspace)
        try:
            yield TarSource(tar, label), key
        finally:
            if tar != fd:
                os.close(tar)
    finally:
        os.close(fd)


def identify(path: str) -> str:
    """What says that an archive is the same as before: device, inode, size and mtime.

    Of a directory its index.json's or, of a `dir:` of skopeo, its manifest.json's: everything else in there is named
    by its content. Empty where it has neither, and so is no image.
    """
    names = [os.path.join(path, name) for name in ("index.json", "manifest.json")] if os.path.isdir(path) else [path]
    for name in names:
        try:
            state = os.stat(name)
        except FileNotFoundError:
            continue
        return f"{state.st_dev}:{state.st_ino}:{state.st_size}:{state.st_mtime_ns}"
    return ""


def _plain(name: str) -> str:
    """A name as members are asked for: many writers put ./ in front, and nothing lies above the root."""
    return posixpath.normpath("/" + name).lstrip("/")


def _spooled(fd: int, label: str, workspace: Workspace) -> int:
    """What comes from a pipe as a file: members are not in the order of their use."""
    with _spool(workspace) as spool:
        while chunk := os.read(fd, _CHUNK):
            _write(spool, chunk)
        tar = _uncompressed(spool, label, workspace)
        return os.dup(spool) if tar == spool else tar


def _uncompressed(fd: int, label: str, workspace: Workspace) -> int:
    """`fd` itself where it is plain, else a new unlinked temporary with what it decompresses to."""
    size = os.fstat(fd).st_size
    if size == 0:
        raise UfsError(f"{label} is empty; an image archive is a tar made by docker save, podman save or skopeo")
    kind = detect(os.pread(fd, 512, 0), label)
    if kind == "plain":
        return fd
    offset = 0

    def more(size: int) -> bytes:
        nonlocal offset
        chunk = os.pread(fd, size, offset)
        offset += len(chunk)
        return chunk

    with _spool(workspace) as spool:
        for chunk in inflate(kind, more, label):
            _write(spool, chunk)
        return os.dup(spool)


@contextmanager
def _spool(workspace: Workspace) -> Iterator[int]:
    """A new temporary without a name, closed at the end: what shall last is dup'ed."""
    spool, path = workspace.temporary()
    try:
        os.unlink(path)
        yield spool
    finally:
        os.close(spool)


def _write(fd: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(fd, view) :]
