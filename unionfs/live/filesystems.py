"""What has to be known of the file systems that lie below a layer: kinds by statfs(2), and where they are mounted."""

from __future__ import annotations

import os
from typing import Final

from unionfs import mounts, syscalls

_STEADY: Final = frozenset(
    {0xEF53, 0x58465342, 0x9123683E, 0xF2F52010, 0x01021994, 0x858458F6, 0x794C7630, 0x73717368, 0xE0F5E1E2}
    | {0x9660, 0x2FC12FC1, 0xCA451A4E, 0x3153464A, 0x52654973, 0x5346544E, 0x7366746E}
)
"""ext4, XFS, Btrfs, F2FS, tmpfs, ramfs, overlayfs, SquashFS, EROFS, ISO 9660, ZFS, bcachefs, JFS, ReiserFS, NTFS: a
file has one inode number for as long as it lives. Elsewhere (FUSE, FAT, network file systems) it may have another after
the host has forgotten it, and one that another file had before."""

_PSEUDO: Final = frozenset(
    {0x9FA0, 0x62656572, 0x64626720, 0x74726163, 0x0027E0EB, 0x63677270, 0x73636673, 0xF97CFF8C, 0x62656570, 0xCAFE4A11}
)
"""proc, sysfs, debugfs, tracefs, cgroup, cgroup2, securityfs, selinuxfs, configfs and bpf: the content is made when it
is read, and st_size does not say how much it is."""


class FileSystems:
    """The file systems of one tree, by st_dev."""

    def __init__(self) -> None:
        self._met: set[int] = set()
        self.unsteady: set[int] = set()
        """Where inode numbers of files may change."""
        self.pseudo: set[int] = set()
        """Where st_size says nothing."""
        self._mount_points: frozenset[bytes] | None = None

    def meet(self, device: int, fd: int) -> None:
        """Something of that device, `fd`, was found."""
        if device in self._met:
            return
        self._met.add(device)
        kind = syscalls.filesystem_type(fd)
        if kind not in _STEADY:
            self.unsteady.add(device)
        if kind in _PSEUDO:
            self.pseudo.add(device)

    @property
    def mount_points(self) -> frozenset[bytes]:
        """The last names of all that is mounted when this is asked first.

        A mount of another file system shows by st_dev; one of the same (a bind mount) has to be looked for.
        """
        if self._mount_points is None:
            found = (os.fsencode(entry.target).rpartition(b"/")[2] for entry in mounts.entries())
            self._mount_points = frozenset(found)
        return self._mount_points


def mount_id(fd: int) -> int:
    """The number of the mount that a descriptor was opened by (proc(5), fdinfo)."""
    with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(b"mnt_id:"))
