"""A tree of files as a tar archive (POSIX.1-2017 pax, as Go's archive/tar, GNU tar and Python read it).

Everything is reached by descriptors of directories, one name at a time and no symbolic link followed, so that a tree
whose owner changes it meanwhile can show nothing but what is in it. No path in /proc is needed: the process
may be in a container's root. Owners are what stat(2) says here. Kept beside them are times to the nanosecond, extended
attributes, hard links among what is packed, and holes (GNU's sparse format 1.0). Sockets are left out, as tar(1) does.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections.abc import Callable, Iterator

from launcher.errors import UfsError

_CHUNK = 1 << 20
_BLOCK = 512
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# What it is a moment later may be a fifo or a terminal, which must neither be waited for nor become ours.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
}
_TRIES = 16
_CHANGED = (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO)
"""Answers to open(2) where a name has come to mean something else since stat(2)."""


class Packer:
    """Writes an archive to the descriptor `out`, which stays the caller's. Names are bytes without a leading slash.

    `owner` says to whom something belongs in the archive: by default to whom it does here.
    """

    def __init__(self, out: int, owner: Callable[[os.stat_result], tuple[int, int]] | None = None) -> None:
        self._out = out
        self._owner = owner or (lambda status: (status.st_uid, status.st_gid))
        self._names: dict[tuple[int, int], bytes] = {}
        """First names of files with several links."""

    def tree(self, parent: int, name: bytes, member: bytes) -> None:
        """What `name` of the directory `parent` is, as `member`, with all that is below; of ``.`` by names of its own.

        FileNotFoundError where there is nothing; what vanishes below while it is packed is left out.
        """
        top = self.add(parent, name, member)
        if top < 0:
            return
        levels = [(top, b"" if member == b"." else member + b"/", _listed(top))]
        try:
            while levels:
                directory, prefix, names = levels[-1]
                below = next(names, None)
                if below is None:
                    os.close(levels.pop()[0])
                    continue
                path = prefix + below
                try:
                    entered = self.add(directory, below, path)
                except FileNotFoundError:
                    continue
                if entered >= 0:
                    levels.append((entered, path + b"/", _listed(entered)))
        finally:
            for directory, _, _ in levels:
                os.close(directory)

    def add(self, parent: int, name: bytes, member: bytes) -> int:
        """One name without what is below. The descriptor of a directory, for the caller to close; else -1."""
        for _ in range(_TRIES):
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
                self._special(parent, name, member, status)
                return -1
            try:
                fd = os.open(name, _DIRECTORY if stat.S_ISDIR(status.st_mode) else _FILE, dir_fd=parent)
            except OSError as error:
                if error.errno not in _CHANGED:
                    raise OSError(error.errno, error.strerror, member) from error
                continue
            opened = os.fstat(fd)
            if stat.S_ISDIR(opened.st_mode):
                self._header(member, opened, _attributes(fd))
                return fd
            try:
                if stat.S_ISREG(opened.st_mode):
                    self._file(fd, member, opened)
                    return -1
            finally:
                os.close(fd)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), member)

    def empty(self, member: bytes) -> None:
        """An empty file of root's, as whiteouts are (OCI image spec, layer.md)."""
        self._write(_info(member).tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))

    def finish(self) -> None:
        """The end mark."""
        self._write(bytes(2 * _BLOCK))

    def _special(self, parent: int, name: bytes, member: bytes, status: os.stat_result) -> None:
        if stat.S_ISSOCK(status.st_mode) or self._linked(member, status):
            return
        target = os.readlink(name, dir_fd=parent) if stat.S_ISLNK(status.st_mode) else b""
        os.fchdir(parent)  # of a name itself there are attributes by a path alone
        self._header(member, status, _attributes(b"./" + name), target)

    def _file(self, fd: int, member: bytes, status: os.stat_result) -> None:
        if self._linked(member, status):
            return
        size = status.st_size
        extents = _extents(fd, size) if status.st_blocks * 512 < size else None
        if extents is None:
            self._header(member, status, _attributes(fd), size=size)
            extents = [(0, size)]
        else:
            extents.append((size, 0))
            numbers = b"".join(b"%d\n" % number for number in [len(extents), *(n for pair in extents for n in pair)])
            numbers += bytes(-len(numbers) % _BLOCK)
            data = sum(length for _, length in extents)
            self._header(member, status, _attributes(fd), size=len(numbers) + data, real_size=size)
            self._write(numbers)
        written = sum(self._copy(fd, member, *extent) for extent in extents)
        self._write(bytes(-written % _BLOCK))

    def _copy(self, fd: int, member: bytes, start: int, length: int) -> int:
        at = start
        while at < start + length:
            piece = os.pread(fd, min(_CHUNK, start + length - at), at)
            if not piece:
                raise UfsError(f"/{os.fsdecode(member)} became shorter while it was copied; try again")
            self._write(piece)
            at += len(piece)
        return length

    def _linked(self, member: bytes, status: os.stat_result) -> bool:
        """Write a hard link where the file is in the archive already."""
        if status.st_nlink < 2:
            return False
        first = self._names.setdefault((status.st_dev, status.st_ino), member)
        if first is member:
            return False
        self._header(member, status, {}, first, type_=tarfile.LNKTYPE)
        return True

    def _header(
        self,
        member: bytes,
        status: os.stat_result,
        attributes: dict[str, bytes],
        target: bytes = b"",
        *,
        size: int = 0,
        real_size: int | None = None,
        type_: bytes = b"",
    ) -> None:
        info = _info(member)
        info.type = type_ or _TYPES[stat.S_IFMT(status.st_mode)]
        info.mode = stat.S_IMODE(status.st_mode)
        info.uid, info.gid = self._owner(status)
        info.linkname = _text(target)
        info.size = size
        info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
        seconds, nanoseconds = divmod(status.st_mtime_ns, 10**9)
        info.mtime = seconds
        extended = {f"SCHILY.xattr.{name}": _text(value) for name, value in attributes.items()}
        if nanoseconds:
            extended["mtime"] = _decimal(status.st_mtime_ns)
        if real_size is not None:
            extended |= {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(real_size)}
            extended["GNU.sparse.name"] = info.name
            info.name = "GNUSparseFile.0/file"  # one that needs no record of its own, which some readers believe more
        info.pax_headers = extended
        self._write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._out, view) :]


def _info(member: bytes) -> tarfile.TarInfo:
    return tarfile.TarInfo(_text(member))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _decimal(nanoseconds: int) -> str:
    """A time in the form of pax: of one before 1970 the whole number is negative."""
    sign, count = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    return f"{sign}{count // 10**9}.{count % 10**9:09d}"


def _listed(directory: int) -> Iterator[bytes]:
    return iter(sorted(map(os.fsencode, os.listdir(directory))))


def _attributes(target: int | bytes) -> dict[str, bytes]:
    """Extended attributes by name; those that go meanwhile are left out."""
    found = {}
    follow = isinstance(target, int)
    try:
        for name in os.listxattr(target, follow_symlinks=follow):
            try:
                found[name] = os.getxattr(target, name, follow_symlinks=follow)
            except OSError as error:
                if error.errno not in (errno.ENODATA, errno.EACCES, errno.EPERM):
                    raise
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.ENOENT, errno.ELOOP):  # no attributes here, or changed meanwhile
            raise
    return found


def _extents(fd: int, size: int) -> list[tuple[int, int]] | None:
    """(start, length) of all data in a file; None where it has no holes, or none that can be found."""
    found = []
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
            end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end
                break
            if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):  # a file system that does not tell
                return None
            raise
        if start >= size:
            break
        found.append((start, end - start))
        at = end
    return None if found == [(0, size)] else found
