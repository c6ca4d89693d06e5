"""A tar archive as files below one directory, whatever the archive says.

Every name is taken apart and gone to by descriptors, no symbolic link followed, so nothing is written elsewhere. Files,
links and fifos are made under a temporary name and renamed: each is there as a whole or as it was. Hard links lead to
what this archive has brought alone. Modes and times of directories come last.
"""

from __future__ import annotations

import errno
import os
import secrets
import tarfile
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

from launcher.errors import UfsError
from unionfs.image import pax

_CHUNK = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_XATTR = "SCHILY.xattr."
_UNFIT = (errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSPC, errno.E2BIG)
"""Of setxattr(2): not on this file system, not for this user, no room for it. Left out then, as cp -a does."""

Parts = tuple[bytes, ...]


class _Member(tarfile.TarInfo):
    """As `TarInfo`, but a damaged or cut header in the middle is an error, which tarfile takes for the end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Any:
        try:
            return super().fromtarfile(archive)
        except (tarfile.TruncatedHeaderError, tarfile.InvalidHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(str(error)) from error


class Rules:
    """`owners`: give the archive's owners, as far as they are mapped here. `trusted`: keep what gives rights, which
    are set-id bits and the attributes security.*. `label` names the archive in messages, `place` the directory."""

    def __init__(self, owners: bool, trusted: bool, label: str, place: str) -> None:
        self.owners = owners
        self.trusted = trusted
        self.label = label
        self.place = place


class Unpacker:
    """Unpacks below the directory `root`, a descriptor that stays the caller's."""

    def __init__(self, root: int, rules: Rules) -> None:
        self._root = root
        self._rules = rules
        self._here: tuple[Parts, int] | None = None
        self._brought: set[Parts] = set()
        self._directories: dict[Parts, tarfile.TarInfo] = {}
        self.left_out: list[str] = []
        """Names of what cannot be made here: device nodes."""

    def all(self, stream: IO[bytes]) -> None:
        """Everything of an archive, which may be compressed."""
        try:
            with tarfile.open(
                fileobj=stream, mode="r|*", bufsize=1 << 18, tarinfo=_Member, encoding="utf-8", errors="surrogateescape"
            ) as archive:
                for member in archive:
                    archive.members = []  # type: ignore[attr-defined]  # it would keep them all
                    self._one(archive, member)
            self._finish()
        except (tarfile.TarError, EOFError, ValueError) as error:
            raise UfsError(f"{self._rules.label} is no tar archive, or was cut: {error}") from error
        finally:
            if self._here:
                os.close(self._here[1])
                self._here = None

    def _one(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        parts = self._parts(member.pax_headers.get("GNU.sparse.name", member.name))
        if member.isdir():
            self._make_directory(parts, member)
            return
        if not parts:
            raise UfsError(f"{self._rules.label}: what shall be the directory itself is none")
        directory = self._directory(parts[:-1])
        if member.isreg():
            self._put(directory, parts, lambda name: self._file(archive, member, directory, name))
        elif member.issym():
            self._put(directory, parts, lambda name: self._symlink(member, directory, name))
        elif member.islnk():
            self._link(member, directory, parts)
        elif member.isfifo():
            self._put(directory, parts, lambda name: self._fifo(member, directory, name))
        elif member.ischr() or member.isblk():
            self.left_out.append(member.name)

    def _parts(self, name: str) -> Parts:
        parts = tuple(part for part in name.encode("utf-8", "surrogateescape").split(b"/") if part not in (b"", b"."))
        if b".." in parts:
            raise UfsError(f"{self._rules.label}: {name!r} leads out of the directory; nothing is written there")
        return parts

    def _shown(self, parts: Parts) -> str:
        return os.path.normpath(os.path.join(self._rules.place, os.fsdecode(b"/".join(parts))))

    def _directory(self, parts: Parts) -> int:
        """A descriptor of a directory below the root, which is made where it is missing; good until the next call."""
        if self._here is not None and self._here[0] == parts:
            return self._here[1]
        start, rest = self._root, parts
        if self._here is not None and parts[: len(self._here[0])] == self._here[0]:
            start, rest = self._here[1], parts[len(self._here[0]) :]
        try:
            here = os.open(b".", _DIRECTORY, dir_fd=start)
        except PermissionError as error:
            raise OSError(error.errno, error.strerror, self._shown(parts)) from error
        try:
            for number, part in enumerate(rest):
                below = self._entered(here, part, parts[: len(parts) - len(rest) + number + 1])
                os.close(here)
                here = below
        except BaseException:
            os.close(here)
            raise
        if self._here is not None:
            os.close(self._here[1])
        self._here = parts, here
        return here

    def _entered(self, here: int, part: bytes, parts: Parts) -> int:
        try:
            try:
                return os.open(part, _DIRECTORY, dir_fd=here)
            except FileNotFoundError:
                os.mkdir(part, 0o755, dir_fd=here)
                return os.open(part, _DIRECTORY, dir_fd=here)
        except NotADirectoryError:  # a symbolic link, too
            raise UfsError(f"cannot overwrite non-directory {self._shown(parts)} with a directory") from None

    def _make_directory(self, parts: Parts, member: tarfile.TarInfo) -> None:
        if not parts:
            return  # the root is there, and is as it is
        directory = self._directory(parts[:-1])
        with suppress(FileExistsError):
            os.mkdir(parts[-1], 0o700, dir_fd=directory)
        self._directory(parts)
        self._directories[parts] = member

    def _finish(self) -> None:
        for parts, member in reversed(self._directories.items()):
            fd = self._directory(parts)
            self._dress(fd, member)

    def _put(self, directory: int, parts: Parts, make: Callable[[bytes], None]) -> None:
        temporary = b".ufs-" + secrets.token_hex(8).encode()
        try:
            make(temporary)
            os.rename(temporary, parts[-1], src_dir_fd=directory, dst_dir_fd=directory)
        except IsADirectoryError:
            raise UfsError(f"cannot overwrite directory {self._shown(parts)} with a file") from None
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._shown(parts)) from error
        finally:
            # Also after rename(2), which does nothing where both are names of one file.
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=directory)
        self._brought.add(parts)

    def _file(self, archive: tarfile.TarFile, member: tarfile.TarInfo, directory: int, name: bytes) -> None:
        fd = os.open(name, _NEW, 0o600, dir_fd=directory)
        try:
            # Not by extractfile(), which reads holes as zeros where an archive comes through a pipe: the data are
            # one extent after the other.
            source: Any = archive.fileobj
            source.seek(member.offset_data)
            extents: Any = member.sparse
            for start, length in [(0, member.size)] if extents is None else extents:
                if start < 0 or length < 0 or start + length > member.size:
                    raise tarfile.ReadError(f"{member.name!r} has data outside of itself")
                self._copy(source, fd, start, length)
            os.ftruncate(fd, member.size)
            self._dress(fd, member)
        finally:
            os.close(fd)

    def _copy(self, source: Any, fd: int, at: int, length: int) -> None:
        while length:
            piece = source.read(min(_CHUNK, length))
            if not piece:
                raise tarfile.ReadError("unexpected end of data")
            view = memoryview(piece)
            while view:
                written = os.pwrite(fd, view, at)
                at, view = at + written, view[written:]
            length -= len(piece)

    def _symlink(self, member: tarfile.TarInfo, directory: int, name: bytes) -> None:
        os.symlink(member.linkname.encode("utf-8", "surrogateescape"), name, dir_fd=directory)
        if self._rules.owners:
            _give(name, member, dir_fd=directory, follow_symlinks=False)
        time = _time(member)
        os.utime(name, ns=(time, time), dir_fd=directory, follow_symlinks=False)

    def _fifo(self, member: tarfile.TarInfo, directory: int, name: bytes) -> None:
        os.mkfifo(name, 0o600, dir_fd=directory)
        if self._rules.owners:
            _give(name, member, dir_fd=directory, follow_symlinks=False)
        os.chmod(name, self._mode(member), dir_fd=directory)  # nobody else can have put anything in its place
        time = _time(member)
        os.utime(name, ns=(time, time), dir_fd=directory, follow_symlinks=False)

    def _link(self, member: tarfile.TarInfo, directory: int, parts: Parts) -> None:
        target = self._parts(member.linkname)
        if target not in self._brought:
            raise UfsError(f"{self._rules.label}: {member.name} is a link to {member.linkname!r}, which is not in it")
        if target == parts:
            return
        here = os.dup(directory)
        try:
            source = self._directory(target[:-1])

            def make(name: bytes) -> None:
                os.link(target[-1], name, src_dir_fd=source, dst_dir_fd=here, follow_symlinks=False)

            self._put(here, parts, make)
        finally:
            os.close(here)

    def _mode(self, member: tarfile.TarInfo) -> int:
        kept = 0o7777 if self._rules.trusted or member.isdir() else 0o1777
        return member.mode & kept

    def _dress(self, fd: int, member: tarfile.TarInfo) -> None:
        if self._rules.owners:
            _give(fd, member)
        for key, value in member.pax_headers.items():
            name = key.removeprefix(_XATTR)
            if key.startswith(_XATTR) and (self._rules.trusted or not name.startswith("security.")):
                try:
                    os.setxattr(fd, name, value.encode("utf-8", "surrogateescape"))
                except OSError as error:
                    if error.errno not in _UNFIT:
                        raise
        os.fchmod(fd, self._mode(member))
        time = _time(member)
        os.utime(fd, ns=(time, time))


def _give(target: int | bytes, member: tarfile.TarInfo, **how: Any) -> None:
    try:
        os.chown(target, member.uid, member.gid, **how)
    except OSError as error:
        if error.errno != errno.EINVAL:  # no such id here (user_namespaces(7)): it stays who made it
            raise


def _time(member: tarfile.TarInfo) -> int:
    """Nanoseconds since 1970; tarfile itself makes a floating number of them."""
    text = member.pax_headers.get("mtime")
    if text is None:
        return int(member.mtime) * 10**9
    seconds, nanoseconds = pax.timestamp(text.encode())
    return seconds * 10**9 + nanoseconds
