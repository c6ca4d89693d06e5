"""What a union does and leaves, where its user has a say."""

from __future__ import annotations

from typing import NamedTuple


class Features(NamedTuple):
    """The usual, unless told otherwise."""

    xattrs: bool = True
    """Extended attributes; else the kernel answers EOPNOTSUPP without asking."""
    acls: bool = True
    """POSIX ACLs, checked and kept."""
    redirects: bool = True
    """Directories of the tree are renamed by a redirect; else that is EXDEV, and none is written."""
    count_links: bool = True
    """Directories of the upper alone have as many links as on its disk; else one (``static_nlink``)."""
    access: int = 0
    """MS_ flags on access times that are asked for (`unionfs.mountflags.ACCESS`); 0: as on the host."""
    sync: bool = False
    """Every change of a file is on the disk before it is answered (``sync`` of mount(8))."""
    sync_names: bool = False
    """So is every change of a directory (``dirsync``)."""


USUAL = Features()
