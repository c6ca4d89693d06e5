"""Writing to the store: temporaries, locks and publishing.

Two locks, both flock(2), so that the end of a process frees them: ``lock`` is shared by everyone who adds to the
store and exclusive for who removes from it; ``index.lock`` is held around reading, changing and writing
index.json. Who takes both takes them in this order.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from launcher.errors import UfsError
from launcher.image import oci
from launcher.image.store import VERSION, Record, Store

_DIRECTORIES = ("blobs/sha256", "layers", "images", "containers", "partial", "tmp")
_LAYOUT = json.dumps({"imageLayoutVersion": "1.0.0"}).encode()


def create(store: Store) -> None:
    """Make the store's directories and fixed files where they are missing."""
    try:
        os.makedirs(store.root, mode=0o700, exist_ok=True)
    except OSError as error:
        # A home directory that is not there and not this user's to make, a file in the way, a read-only disk.
        if error.errno not in (errno.EACCES, errno.EEXIST, errno.ENOTDIR, errno.EROFS):
            raise
        reason = f"cannot make {os.fsdecode(error.filename)}: {error.strerror}"
        raise UfsError(f"{store.root}: {reason}; set UFS_ROOT to a directory of your own") from None
    for name in _DIRECTORIES:
        os.makedirs(store.path(name), mode=0o700, exist_ok=True)
    for name, content in (("oci-layout", _LAYOUT), ("version", f"{VERSION}\n".encode())):
        if not os.path.exists(store.path(name)):
            _replace(store, name, content)
    if not os.path.exists(store.path("index.json")):
        change_index(store, lambda records: records)


@contextmanager
def locked(store: Store, name: str, operation: int) -> Iterator[None]:
    """Hold a lock file of the store; BlockingIOError where `operation` has LOCK_NB and it is taken."""
    fd = os.open(store.path(name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, operation)
        yield
    finally:
        os.close(fd)


def change_index(store: Store, change: Callable[[list[Record]], list[Record]], drop_damaged: bool = False) -> None:
    """Read index.json, let `change` say what images it should hold, and replace it; one process at a time.

    What it names that is no image stays as it is; `drop_damaged`: but for what is nothing.
    """
    with locked(store, "index.lock", fcntl.LOCK_EX):
        before, others = store.survey()
        after = change(list(before))
        left = [other.document for other in others if not (drop_damaged and other.damaged)]
        if after == before and len(left) == len(others) and os.path.exists(store.path("index.json")):
            return
        document = {
            "schemaVersion": 2,
            "mediaType": oci.INDEX,
            "manifests": [record.descriptor().document() for record in after] + left,
        }
        _replace(store, "index.json", json.dumps(document, indent=1).encode() + b"\n")


def sweep(store: Store, directory: str = "tmp") -> int:
    """Remove what processes that ended left in a directory; returns the bytes freed.

    A live owner holds a lock on its entry; the kernel gives it up however a process ends. What is in ``partial`` waits
    for the next pull, and is swept by `prune` alone.
    """
    freed = 0
    for name in os.listdir(store.path(directory)):
        path = store.path(directory, name)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue  # its owner was quicker
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            freed += _remove(path)
        except BlockingIOError:
            continue
        finally:
            os.close(fd)
    return freed


class Workspace:
    """A directory for one process's temporaries, in the store, so that publishing is a rename.

    Entering holds the store's shared lock and removes what dead processes left; leaving removes the directory.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._shared: int | None = None
        self._lock: int | None = None
        self._path = ""

    def __enter__(self) -> Workspace:
        create(self.store)
        path = self.store.path("lock")
        self._shared = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._shared, fcntl.LOCK_SH)
            sweep(self.store)
            while self._lock is None:
                self._lock = self._claim()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            shutil.rmtree(self._path)
            os.close(self._lock)
        if self._shared is not None:
            os.close(self._shared)
        self._lock = self._shared = None

    def _claim(self) -> int | None:
        """Make and lock the directory; None where a sweep of another process came in between."""
        self._path = self.store.path("tmp", secrets.token_hex(8))
        os.mkdir(self._path, 0o700)
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return fd
        os.close(fd)
        return None

    def temporary(self) -> tuple[int, str]:
        """A new empty file: (descriptor to read and write, path). The caller closes, `__exit__` removes."""
        path = os.path.join(self._path, secrets.token_hex(8))
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), path

    def write(self, content: bytes) -> str:
        """A small file, on disk; returns its path."""
        fd, path = self.temporary()
        with open(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(fd)
        return path

    def publish(self, temporary: str, path: str) -> None:
        """Give a finished and synced temporary its place; what is there already has the same content."""
        os.rename(temporary, path)


def sync_directories(store: Store) -> None:
    """Make published names durable, before index.json says that they are there."""
    for name in ("blobs/sha256", "layers", "images"):
        sync_directory(store.path(name))


def sync_directory(path: str) -> None:
    """fsync(2) of a directory: its names."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _replace(store: Store, name: str, content: bytes) -> None:
    fd, path = _locked_temporary(store)
    try:
        with open(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(fd)
            os.rename(path, store.path(name))
    except BaseException:
        os.unlink(path)
        raise
    sync_directory(store.root)


def _locked_temporary(store: Store) -> tuple[int, str]:
    """A temporary outside of any workspace. A sweep may come between making and locking it: then again."""
    while True:
        path = store.path("tmp", secrets.token_hex(8))
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return fd, path
        os.close(fd)


def _remove(path: str) -> int:
    """Remove a file or a directory of files; returns the bytes they took."""
    if not os.path.isdir(path):
        size = os.lstat(path).st_size
        os.unlink(path)
        return size
    size = sum(os.lstat(os.path.join(path, name)).st_size for name in os.listdir(path))
    shutil.rmtree(path)
    return size
