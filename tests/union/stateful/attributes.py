"""Steps that change attributes and xattrs, by path and by descriptor."""

from __future__ import annotations

import os
import stat

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tests.support.compare import status
from tests.support.content import PAST
from tests.union.stateful.sides import DATA, MODES, PLACES, SLOTS, Pick, Sides

XATTRS = st.sampled_from(["user.one", "user.two", "user.three", "user.four", "security.five"])
FLAGS = st.sampled_from([0, os.XATTR_CREATE, os.XATTR_REPLACE])
TIMES = st.tuples(*[st.integers(-5 * 10**9, PAST * 10**9)] * 2)
UIDS, GIDS = st.sampled_from([-1, 0, 1000]), st.sampled_from([-1, 0, 2000])


class Attributes(Sides):
    """chmod, chown, utimens, stat, xattrs."""

    @rule(pick=PLACES, mode=MODES)
    def chmod(self, pick: Pick, mode: int) -> None:
        path = self.path(pick)
        self.both(lambda base: os.chmod(base / path, mode))

    @precondition(lambda self: os.geteuid() == 0)
    @rule(pick=PLACES, uid=UIDS, gid=GIDS)
    def chown(self, pick: Pick, uid: int, gid: int) -> None:
        # Changing nothing takes set-id bits as well, but fuse_setattr() of the kernel does not say so to us.
        path = self.path(pick)
        if (uid, gid) != (-1, -1):
            self.both(lambda base: os.chown(base / path, uid, gid, follow_symlinks=False))

    @rule(pick=PLACES, times=TIMES)
    def utimens(self, pick: Pick, times: tuple[int, int]) -> None:
        path = self.path(pick)

        def call(base: os.PathLike[str]) -> tuple[int, int]:
            os.utime(os.path.join(base, path), ns=times, follow_symlinks=False)
            info = os.lstat(os.path.join(base, path))
            return info.st_atime_ns, info.st_mtime_ns

        self.both(call)

    @rule(pick=PLACES)
    def stat_by_name(self, pick: Pick) -> None:
        path = self.path(pick)
        self.both(lambda base: status(os.stat(base / path)))

    @rule(pick=PLACES, name=XATTRS, value=DATA, flags=FLAGS)
    def setxattr(self, pick: Pick, name: str, value: bytes, flags: int) -> None:
        path = self.path(pick)
        self.both(lambda base: os.setxattr(base / path, name, value[:2000], self._flags(flags), follow_symlinks=False))

    @rule(pick=PLACES, name=XATTRS)
    def removexattr(self, pick: Pick, name: str) -> None:
        path = self.path(pick)
        self.both(lambda base: os.removexattr(base / path, name, follow_symlinks=False))

    @rule(pick=PLACES, name=XATTRS)
    def getxattr(self, pick: Pick, name: str) -> None:
        path = self.path(pick)
        self.both(lambda base: os.getxattr(base / path, name, follow_symlinks=False))

    def _flags(self, flags: int) -> int:
        return 0 if self.engine == "pyfuse3" else flags  # it does not pass them on

    # By descriptor.

    @rule(slot=SLOTS)
    def fstat(self, slot: int) -> None:
        self.on_slot(slot, lambda fd: status(os.fstat(fd)))

    @rule(slot=SLOTS, mode=MODES)
    def fchmod(self, slot: int, mode: int) -> None:
        self.on_slot(slot, lambda fd: os.fchmod(fd, mode))

    @precondition(lambda self: os.geteuid() == 0)
    @rule(slot=SLOTS, uid=UIDS, gid=GIDS)
    def fchown(self, slot: int, uid: int, gid: int) -> None:
        if (uid, gid) != (-1, -1):
            self.on_slot(slot, lambda fd: os.fchown(fd, uid, gid))

    @rule(slot=SLOTS, times=TIMES)
    def futimens(self, slot: int, times: tuple[int, int]) -> None:
        self.on_slot(slot, lambda fd: os.utime(fd, ns=times))

    @rule(slot=SLOTS, name=XATTRS, flags=FLAGS)
    def fsetxattr(self, slot: int, name: str, flags: int) -> None:
        self.on_slot(slot, lambda fd: os.setxattr(fd, name, b"by descriptor", self._flags(flags)))

    @rule(slot=SLOTS, name=XATTRS)
    def fremovexattr(self, slot: int, name: str) -> None:
        self.on_slot(slot, lambda fd: os.removexattr(fd, name))

    @rule(slot=SLOTS)
    def flistxattr(self, slot: int) -> None:
        self.on_slot(slot, lambda fd: sorted((name, os.getxattr(fd, name)) for name in os.listxattr(fd)))

    @rule(slot=SLOTS)
    def readlink_of_what_is_open(self, slot: int) -> None:
        """Of a symbolic link that was opened with O_PATH (readlinkat(2) with an empty path)."""
        self.on_slot(slot, lambda fd: os.readlink("", dir_fd=fd) if stat.S_ISLNK(os.fstat(fd).st_mode) else "")
