"""Copying the bytes of files inside the kernel where it can, keeping holes. Safe in any thread.

What must be whole raises EIO where the source ends early: a copy must never pass for the file with zeros at its end.
"""

from __future__ import annotations

import errno
import os

from unionfs import syscalls

_CHUNK = 1 << 24  # bytes a call, so that a worker notices the end of the process now and then

# copy_file_range(2): other file systems, special files and old kernels, in which case reading and writing serves.
_NO_COPY_RANGE = (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.ETXTBSY)


def copy_file(source: int, target: int, size: int) -> None:
    """Copy the first `size` bytes of a regular file into an empty one, by sharing blocks if that is possible.

    EIO where it has not so many, as a live file that is cut meanwhile.
    """
    if size and size == os.fstat(source).st_size and syscalls.reflink(source, target):
        _check_size(target, size)
        return
    offset = 0
    while offset < size:
        start = _seek(source, offset, os.SEEK_DATA, size)
        stop = _seek(source, start, os.SEEK_HOLE, size) if start < size else size
        copy_whole(source, start, target, start, stop - start)
        offset = stop
    os.ftruncate(target, size)


def copy_until_end(source: int, target: int, most: int) -> bool:
    """Copy a file whose size is not known before its end; False where that did not come in so many bytes."""
    offset = 0
    while offset <= most:
        copied = _copy_through_memory(source, offset, target, offset, 1 << 20)
        if not copied:
            return True
        offset += copied
    return False


def _seek(fd: int, offset: int, whence: int, size: int) -> int:
    try:
        return min(os.lseek(fd, offset, whence), size)
    except OSError as error:
        if error.errno == errno.ENXIO:  # Nothing but a hole up to the end, if that is as far as it should be.
            _check_size(fd, size)
            return size
        raise


def _check_size(fd: int, size: int) -> None:
    if os.fstat(fd).st_size < size:
        raise ended_early()


def ended_early() -> OSError:
    """For bytes that must be there and are not: a layer that was cut, a file that shrank while it was copied."""
    return OSError(errno.EIO, os.strerror(errno.EIO))


def copy_whole(source: int, source_offset: int, target: int, target_offset: int, length: int) -> None:
    """Copy `length` bytes; EIO where the source has not so many."""
    if copy_range(source, source_offset, target, target_offset, length) < length:
        raise ended_early()


def copy_range(source: int, source_offset: int, target: int, target_offset: int, length: int) -> int:
    """Copy up to `length` bytes; returns how many there were before the source ended."""
    copied = 0
    while copied < length:
        try:
            moved = os.copy_file_range(
                source, target, min(_CHUNK, length - copied), source_offset + copied, target_offset + copied
            )
        except OSError as error:
            if error.errno not in _NO_COPY_RANGE:
                raise
            moved = _copy_through_memory(
                source, source_offset + copied, target, target_offset + copied, length - copied
            )
        if not moved:
            break
        copied += moved
    return copied


def _copy_through_memory(source: int, source_offset: int, target: int, target_offset: int, length: int) -> int:
    data = os.pread(source, min(1 << 20, length), source_offset)
    view = memoryview(data)
    while view:
        written = os.pwrite(target, view, target_offset)
        target_offset += written
        view = view[written:]
    return len(data)
