"""The mount options ``sync`` and ``dirsync`` of mount(8): what is answered is on the disk.

The kernel itself asks for the data of a file (generic_write_sync(), by SB_SYNCHRONOUS). Names and attributes it
leaves to the file system.
"""

from __future__ import annotations

from unionfs.union import SetAttr, Union


class Synchronous(Union):
    """A union that brings every change to the disk before it answers."""

    def _settle_names(self, *directories: int) -> None:
        for id in dict.fromkeys(directories):
            self._bring_to_disk(id)

    def _settle_attributes(self, id: int) -> None:
        if self.features.sync:
            self._bring_to_disk(id)

    def _bring_to_disk(self, id: int) -> None:
        later = self.fsync(id, False)
        if later is not None:
            later.work()

    def mknod(self, parent: int, name: bytes, mode: int, rdev: int, uid: int, gid: int, umask: int = 0) -> bytes:
        entry = super().mknod(parent, name, mode, rdev, uid, gid, umask)
        self._settle_names(parent)
        return entry

    def mkdir(self, parent: int, name: bytes, mode: int, uid: int, gid: int, umask: int = 0) -> bytes:
        entry = super().mkdir(parent, name, mode, uid, gid, umask)
        self._settle_names(parent)
        return entry

    def symlink(self, parent: int, name: bytes, target: bytes, uid: int, gid: int) -> bytes:
        entry = super().symlink(parent, name, target, uid, gid)
        self._settle_names(parent)
        return entry

    def link(self, id: int, parent: int, name: bytes) -> bytes:
        entry = super().link(id, parent, name)
        self._settle_names(parent)
        return entry

    def unlink(self, parent: int, name: bytes) -> None:
        super().unlink(parent, name)
        self._settle_names(parent)

    def rmdir(self, parent: int, name: bytes) -> None:
        super().rmdir(parent, name)
        self._settle_names(parent)

    def rename(
        self, parent: int, name: bytes, newparent: int, newname: bytes, flags: int = 0, uid: int = 0, gid: int = 0
    ) -> None:
        super().rename(parent, name, newparent, newname, flags, uid, gid)
        self._settle_names(newparent, parent)

    def setattr(self, id: int, change: SetAttr) -> bytes | memoryview:
        attributes = super().setattr(id, change)
        self._settle_attributes(id)
        return attributes

    def setxattr(self, id: int, name: bytes, value: bytes, flags: int, kill_setgid: bool = False) -> None:
        super().setxattr(id, name, value, flags, kill_setgid)
        self._settle_attributes(id)

    def removexattr(self, id: int, name: bytes) -> None:
        super().removexattr(id, name)
        self._settle_attributes(id)
