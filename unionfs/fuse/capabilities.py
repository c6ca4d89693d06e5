"""What the direct front end asks of the kernel in its answer to INIT."""

from __future__ import annotations

from unionfs.fuse.wire import Init
from unionfs.union import Union

WANTED = (
    Init.ASYNC_READ | Init.BIG_WRITES | Init.DO_READDIRPLUS | Init.ASYNC_DIO
    | Init.NO_OPEN_SUPPORT | Init.PARALLEL_DIROPS | Init.MAX_PAGES | Init.CACHE_SYMLINKS
    | Init.NO_OPENDIR_SUPPORT | Init.HANDLE_KILLPRIV_V2 | Init.DONT_MASK | Init.SETXATTR_EXT
)  # fmt: skip
"""Not ATOMIC_O_TRUNC: together with no-open the truncation would be lost. Not READDIRPLUS_AUTO: always plus.
DONT_MASK: whether the umask counts is for the directory's default ACL to say. Not WRITEBACK_CACHE unless it is
asked for: it makes every close(2) cost the next stat(2) a request, and lets write(2) succeed on a full disk.
"""

WANTED_WRITABLE = Init.POSIX_ACL
"""Brings default_permissions along, and a GETXATTR for whoever is not the owner: a read-only mount goes without."""

UNWANTED_WHERE_FINITE = Init.WRITEBACK_CACHE | Init.CACHE_SYMLINKS
"""With a finite timeout: with the former the kernel believes no size but its own (fuse_get_cache_mask() in
fs/fuse/inode.c), and what it keeps of a symbolic link it keeps for ever."""


def wanted(union: Union, writeback: bool) -> int:
    """The INIT flags that suit a union; `writeback`: as `unionfs.serve.serve` has it."""
    flags: int = WANTED
    if union.upper_or_none is not None:
        flags |= (WANTED_WRITABLE if union.features.acls else 0) | (Init.WRITEBACK_CACHE if writeback else 0)
    if union.valid.finite:
        flags = flags & ~UNWANTED_WHERE_FINITE | Init.AUTO_INVAL_DATA
    return flags
