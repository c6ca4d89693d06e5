"""The direct front end: our own loop on /dev/fuse.

`Messages` says what a request means; here it is read, answered, and put off where it has to wait. One thread reads and
answers. What may block for long, i.e. a `Later` or the `Job` of a promotion, runs in a worker, and its end wakes the
loop through an eventfd. Requests that wait for a job are kept as they came and are served again when it is finished.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from unionfs.fuse import wire
from unionfs.fuse.intake import Intake
from unionfs.fuse.messages import MAX_WRITE, Messages, Table
from unionfs.fuse.splicing import Splicer
from unionfs.limits import Relay
from unionfs.tree import Run
from unionfs.union import Busy, Job, Later, Union

if TYPE_CHECKING:
    from unionfs.fuse.workers import Workers

BUFFER = MAX_WRITE + 4096
"""The kernel wants room for a header beside the largest write (fuse_dev_do_read())."""

WORKERS = 4

# By these names the loop is spared two look-ups for each message.
_unpack = wire.REQUEST.unpack_from
_BODY = slice(wire.IN_HEADER.size, None)
_pack = wire.OUT_HEADER.pack
_HEADER = wire.OUT_HEADER.size

_COPIED = 4096
"""Up to so many bytes a reply is put together here: the kernel takes one piece faster than two."""


class Direct:
    """Serves one union on one /dev/fuse descriptor until it is unmounted."""

    def __init__(
        self, union: Union, fd: int, ready: Callable[[], None] | None = None, *, writeback: bool = False
    ) -> None:
        self._fd = fd
        self._splicer = Splicer(fd)
        self._remedy = union.remedy
        self._messages = Messages(union, writeback, ready, self._splicer.takes)
        self._intake = Intake(fd, BUFFER, union.tree)
        union.outdate = self._outdate
        self._pool: Workers | None = None
        self._wake = -1
        self._relay = Relay()
        self._running = 0  # what workers have not finished yet
        self._done: deque[Callable[[], None]] = deque()
        self._waiting: dict[Job, list[bytes]] = {}

    # The loop.

    def serve(self) -> None:
        """Answer until the mount is gone."""
        try:
            while (message := self._intake.take(self._running > 0)) is not None:
                if message:
                    self._dispatch(message, self._messages.table)
                while self._done:
                    self._running -= 1
                    self._done.popleft()()
                if self._relay.due and not self._running:
                    self._relay.pass_on()
                    self._pool = None  # its threads are not here
        finally:
            self._stop()

    def _dispatch(self, message: memoryview, requests: Table) -> None:
        if len(message) < _BODY.start:
            return  # nothing says whom to answer
        opcode, unique, node, uid, gid = _unpack(message)
        known = requests.get(opcode)
        if known is None:
            self._reply(unique, errno.ENOSYS)
            return
        handler, least = known
        if len(message) < least:
            self._reply(unique, errno.EINVAL)
            return
        try:
            answer = handler(node, message[_BODY], uid, gid)
        except OSError as error:
            remedy = self._remedy(error)
            if remedy is None:
                self._reply(unique, error.errno or errno.EIO)
            else:
                with remedy:
                    self._dispatch(message, requests)
        except Busy as busy:
            self._park(busy.job, message)
        except Exception:  # whatever it is, the mount has to live on
            import logging

            logging.getLogger(__name__).exception("request %d (opcode %d) for node %d", unique, opcode, node)
            self._reply(unique, errno.EIO)
        else:
            if answer is None:
                return
            if isinstance(answer, Later):
                self._defer(unique, answer)
            elif isinstance(answer, Run):
                if not self._splicer.send(unique, answer):
                    self._dispatch(message, self._messages.plain)
            else:
                self._reply(unique, 0, answer)

    def _reply(self, unique: int, code: int, payload: bytes | memoryview = b"") -> None:
        header = _pack(_HEADER + len(payload), -code, unique)
        try:
            if len(payload) <= _COPIED:
                os.write(self._fd, header + payload)
            else:
                os.writev(self._fd, (header, payload))
        except OSError as error:
            # ENOENT: interrupted meanwhile, nobody waits for the answer; or a node that the kernel has forgotten.
            # ENODEV: unmounted; the loop will see it.
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                raise

    def _outdate(self, node: int) -> None:
        self._reply(0, -wire.NOTIFY_INVAL_INODE, wire.INVAL_INODE_OUT.pack(node, -1, 0))

    # What runs in workers.

    def _submit(self, work: Callable[[], None], done: Callable[[OSError | None], None]) -> None:
        if self._pool is None:
            from unionfs.fuse.workers import Workers

            self._pool = Workers(WORKERS)
            if self._wake < 0:
                self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                self._intake.wake_by(self._wake)

        def run() -> None:
            failure: OSError | None = None
            try:
                work()
            except OSError as error:
                failure = error
            except Exception:  # the request must be answered
                import logging

                logging.getLogger(__name__).exception("in a worker")
                failure = OSError(errno.EIO, os.strerror(errno.EIO))
            self._done.append(lambda: done(failure))
            os.eventfd_write(self._wake, 1)

        self._running += 1
        self._pool.submit(run)

    def _defer(self, unique: int, later: Later) -> None:
        self._submit(later.work, lambda failure: self._reply(unique, (failure.errno or errno.EIO) if failure else 0))

    def _park(self, job: Job, message: memoryview) -> None:
        self._waiting.setdefault(job, []).append(bytes(message))
        if not job.started:
            job.started = True
            self._submit(job.work, lambda _: self._finish(job))

    def _finish(self, job: Job) -> None:
        job.finish()
        for message in self._waiting.pop(job):
            if job.error is None:
                self._dispatch(memoryview(message), self._messages.table)
            else:
                unique = wire.IN_HEADER.unpack_from(message)[2]
                self._reply(unique, job.error.errno or errno.EIO)

    def _stop(self) -> None:
        """The mount is gone: wait for the workers, then let what they did be published or cleaned up."""
        self._intake.close()
        self._splicer.close()
        if self._wake < 0:
            return
        if self._pool is not None:
            self._pool.stop()
        for parked in self._waiting.values():
            parked.clear()  # nobody waits for these any more
        while self._done:
            self._done.popleft()()
        os.close(self._wake)
