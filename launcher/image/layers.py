"""Bringing layers into a workspace: decompressing, hashing and writing at once, on all processors.

Each layer has two threads with a bounded queue between them: one reads, hashes and writes the blob and
decompresses; the other hashes and writes the uncompressed tar. zlib, zstandard, hashlib and the system calls
release the interpreter's lock for pieces of this size. Two layers run at a time, the largest first.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import NamedTuple

from launcher.errors import UfsError
from launcher.image import oci
from launcher.image.compression import detect, inflate
from launcher.image.found import LayerSource
from launcher.image.oci import Descriptor
from launcher.image.source import Blob, Bytes, Cancelled
from launcher.image.store import Store
from launcher.image.workspace import Workspace

_CHUNK = 1 << 20
_HEAD = 512
_PIECES = 8  # waiting between the two threads of a layer
_AT_A_TIME = 2
_SUFFIX = {"plain": "", "gzip": "+gzip", "zstd": "+zstd"}
"""Of the media types that OCI has. A layer of a docker-archive that is compressed otherwise is kept plain alone."""

Progress = Callable[[int], None]
"""Called with the number of bytes of the source that were read since the last call; from any thread."""


class Ingested(NamedTuple):
    """A verified layer. Temporaries are None where the store has the file already; they are synced."""

    descriptor: Descriptor
    diff_id: str
    blob: str | None
    tar: str | None

    def tar_path(self, store: Store) -> str:
        """Where the uncompressed layer can be read now."""
        return self.tar or store.layer(self.diff_id)


class Mismatch(UfsError):
    """Bytes that are not what their digest says."""


class Ingesting:
    """Layers, each different, on their way. Leaving the context early stops the work and waits for its end."""

    def __init__(self, layers: Sequence[LayerSource], workspace: Workspace, progress: Progress) -> None:
        self._workspace = workspace
        self._progress = progress
        self._cancel = threading.Event()
        self._workers = ThreadPoolExecutor(_AT_A_TIME, "layer")
        self._syncers = ThreadPoolExecutor(1, "sync")
        self._syncs: list[tuple[int, Future[None]]] = []
        self._order = list(layers)
        largest_first = sorted(self._order, key=lambda layer: -(layer.blob.size if layer.blob else 0))
        self._futures = {id(layer): self._workers.submit(self._one, layer) for layer in largest_first}

    def __enter__(self) -> Ingesting:
        return self

    def __exit__(self, *_: object) -> None:
        self._abandon()
        self._workers.shutdown(cancel_futures=True)
        self._syncers.shutdown(cancel_futures=True)
        for fd, future in self._syncs:
            if future.cancelled():
                os.close(fd)

    def results(self) -> list[Ingested]:
        """The layers in their order once all are verified; they may not be on disk yet."""
        done, _ = wait(self._futures.values(), return_when=FIRST_EXCEPTION)
        for future in done:
            error = future.exception()
            if error is not None and not isinstance(error, Cancelled):
                raise error
        return [self._futures[id(layer)].result() for layer in self._order]

    def synced(self) -> None:
        """Wait until everything is on disk."""
        for _, future in self._syncs:
            future.result()

    def _one(self, layer: LayerSource) -> Ingested:
        try:
            return _Layer(layer, self._workspace, self._read, self._sync).ingest()
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        self._cancel.set()
        for layer in self._order:
            if layer.blob is not None:
                layer.blob.abandon()

    def _read(self, count: int) -> None:
        if self._cancel.is_set():
            raise Cancelled
        self._progress(count)

    def _sync(self, fd: int) -> None:
        """Put a finished file on disk in the background, and close it."""
        self._syncs.append((fd, self._syncers.submit(_sync_and_close, fd)))


class _Layer:
    """One layer on its way."""

    def __init__(
        self, layer: LayerSource, workspace: Workspace, progress: Progress, sync: Callable[[int], None]
    ) -> None:
        self._layer = layer
        self._workspace = workspace
        self._store = workspace.store
        self._progress = progress
        self._sync = sync

    def ingest(self) -> Ingested:
        stated = self._layer.descriptor
        have_tar = os.path.exists(self._store.layer(self._layer.diff_id))
        have_blob = stated is not None and os.path.exists(self._store.blob(stated.hex))
        if have_tar and have_blob:
            assert stated is not None
            self._progress(self._layer.blob.size if self._layer.blob else 0)
            return Ingested(stated, self._layer.diff_id, None, None)
        if have_blob:
            assert stated is not None
            with open(self._store.blob(stated.hex), "rb", buffering=0) as file:
                blob = Blob(file.fileno(), 0, stated.size)
                return self._bring(blob, need_blob=False, need_tar=True)
        if self._layer.blob is None:
            raise UfsError(f"{self._layer.label} is not in it and not in the store; {self._layer.missing}")
        try:
            return self._bring(self._layer.blob, need_blob=True, need_tar=not have_tar)
        except Mismatch:
            self._layer.blob.spoiled()
            raise

    def _bring(self, blob: Bytes, need_blob: bool, need_tar: bool) -> Ingested:
        kind = detect(_head(blob), self._layer.label)
        if kind == "plain":
            return self._bring_plain(blob)
        if self._layer.descriptor is None and kind not in _SUFFIX:
            need_blob, need_tar = False, True
        blob_file = self._blob_file(blob) if need_blob else None
        copied = blob_file[0] if blob_file and blob.path is None else None
        intake = _Intake(blob, _Sink(copied), self._progress, self._layer.label)
        tar_path = None
        try:
            if need_tar:
                tar_fd, tar_path = self._workspace.temporary()
                try:
                    output = _Sink(tar_fd)
                    with _Behind(output.write) as behind:
                        for piece in inflate(kind, intake.read, self._layer.label):
                            behind.put(piece)
                    self._check_diff_id(output.hash.hexdigest())
                except BaseException:
                    os.close(tar_fd)
                    raise
                self._sync(tar_fd)
            while intake.read(_CHUNK):  # what follows the stream is part of the blob
                pass
            if not need_blob and self._layer.descriptor is None:
                assert tar_path is not None
                plain = Descriptor(oci.LAYER, f"sha256:{self._layer.diff_id}", os.stat(tar_path).st_size)
                return Ingested(plain, self._layer.diff_id, tar_path, tar_path)
            descriptor = self._described(kind, intake.sink.hash.hexdigest(), blob.size)
        except BaseException:
            if blob_file:
                os.close(blob_file[0])
            raise
        if blob_file:
            self._sync(blob_file[0])
        return Ingested(descriptor, self._layer.diff_id, blob_file and blob_file[1], tar_path)

    def _blob_file(self, blob: Bytes) -> tuple[int, str]:
        """Where the blob is kept until it is published: its own file, or a temporary to copy it to."""
        return self._workspace.temporary() if blob.path is None else (blob.descriptor_of_file(), blob.path)

    def _bring_plain(self, blob: Bytes) -> Ingested:
        """An uncompressed layer: blob and tar are one file, one digest."""
        fd, path = self._blob_file(blob)
        try:
            copy = _Sink(fd if blob.path is None else None)
            intake = _Intake(blob, None, self._progress, self._layer.label)
            with _Behind(copy.digest) as behind:
                while piece := intake.read(_CHUNK):
                    behind.put(piece)
                    copy.store(piece)
            digest = copy.hash.hexdigest()
            descriptor = self._described("plain", digest, blob.size)
            self._check_diff_id(digest)
        except BaseException:
            os.close(fd)
            raise
        self._sync(fd)
        return Ingested(descriptor, self._layer.diff_id, path, path)

    def _described(self, kind: str, digest: str, size: int) -> Descriptor:
        stated = self._layer.descriptor
        if stated is None:
            return Descriptor(oci.LAYER + _SUFFIX[kind], "sha256:" + digest, size)
        if stated.hex != digest:
            raise Mismatch(
                f"{self._layer.label} does not match its digest: it has sha256:{digest}; "
                "the file is damaged, copy it again"
            )
        return stated

    def _check_diff_id(self, digest: str) -> None:
        if digest != self._layer.diff_id:
            raise Mismatch(
                f"{self._layer.label} unpacks to sha256:{digest}, the image's config says "
                f"sha256:{self._layer.diff_id}; the image is damaged or forged, copy it again from its origin"
            )


class _Sink:
    """A file that is written and hashed; with no descriptor it is hashed only."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd
        self.hash = hashlib.sha256()

    def write(self, piece: bytes) -> None:
        self.digest(piece)
        self.store(piece)

    def digest(self, piece: bytes) -> None:
        self.hash.update(piece)

    def store(self, piece: bytes) -> None:
        if self._fd is None:
            return
        view = memoryview(piece)
        while view:
            view = view[os.write(self._fd, view) :]


class _Intake:
    """Reads the bytes of a blob in order, passing them to a sink on the way."""

    def __init__(self, blob: Bytes, sink: _Sink | None, progress: Progress, label: str) -> None:
        self._blob = blob
        self._at = 0
        self._progress = progress
        self._label = label
        self.sink = sink or _Sink(None)
        self._passing = sink is not None

    def read(self, size: int) -> bytes:
        wanted = min(size, self._blob.size - self._at)
        piece = self._blob.read(self._at, wanted)
        if wanted and not piece:
            raise UfsError(f"{self._label} ends early; the file is truncated, copy it again")
        self._at += len(piece)
        self._progress(len(piece))
        if self._passing:
            self.sink.write(piece)
        return piece


class _Behind:
    """A thread that consumes pieces in order. Leaving waits for it; its error is raised in `put` or there."""

    def __init__(self, consume: Callable[[bytes], None]) -> None:
        self._consume = consume
        self._pieces: queue.Queue[bytes | None] = queue.Queue(_PIECES)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="layer-write")

    def __enter__(self) -> _Behind:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pieces.put(None)
        self._thread.join()
        if kind is None and self._error is not None:
            raise self._error

    def put(self, piece: bytes) -> None:
        if self._error is not None:
            raise self._error
        self._pieces.put(piece)

    def _all(self) -> Iterator[bytes]:
        while (piece := self._pieces.get()) is not None:
            yield piece

    def _run(self) -> None:
        for piece in self._all():
            if self._error is None:  # after an error the rest is only taken, so that `put` never waits for ever
                try:
                    self._consume(piece)
                except OSError as error:
                    self._error = error


def _head(blob: Bytes) -> bytes:
    """Enough to tell the compression, also of a blob that is still on its way."""
    head = b""
    while len(head) < _HEAD and (piece := blob.read(len(head), _HEAD - len(head))):
        head += piece
    return head


def _sync_and_close(fd: int) -> None:
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
