"""Where a copy begins or ends: the host, a container whether it runs or not, an image. Each is a `Worker` of its own.

In a running container it enters the user and mount namespaces and stands in a copy of the root mount alone, without
what is mounted there but the volumes: neither proc nor dev nor a tmpfs is anything that is copied. For one that does
not run, and for an image, the union is mounted as `start` does it, in a mount namespace that ends with the worker.
In either case the worker stays out of the container's pid namespace: no process in there can see or trace it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import prctl

from launcher.container import config, lifecycle, lock, state
from launcher.errors import UfsError
from launcher.sandbox import idmap, init, namespaces, rootfs, server, syscalls
from launcher.sandbox.protocol import Channel, PeerGone

if TYPE_CHECKING:
    from launcher.container.catalogue import Container
    from launcher.image.resolve import Image
    from launcher.image.store import Store
    from launcher.sandbox.idmap import IdMap
    from launcher.sandbox.spec import Spec, Volume
    from unionfs.union import Union

_PATIENCE, _PAUSE = 60.0, 0.01  # seconds

Body = Callable[[Channel], int]
"""What is done in a place: answers on the channel, and gives the exit status."""


def worker(channel: Channel) -> int:
    """The usual body, in a container or an image."""
    from launcher.transfer.worker import Worker

    return Worker(channel, confined=True).serve()


@contextmanager
def on_host(ids: IdMap | None) -> Iterator[Channel]:
    """A worker that sees the host; with `ids` as root of a user namespace, so that owners are a container's."""
    from launcher.transfer.worker import Worker

    def body(channel: Channel) -> int:
        return Worker(channel, confined=False).serve()

    if ids is not None:
        pid, channel = namespaces.fork_mapped(ids, "copier", body)
    else:
        channel, theirs = Channel.pair("command", "copier")

        def child() -> int:
            channel.close()
            return body(theirs)

        pid = namespaces.fork(child)
        theirs.close()
    with _ended(pid, channel):
        yield channel


@contextmanager
def in_container(store: Store, container: Container, *, volumes: bool = True, body: Body = worker) -> Iterator[Channel]:
    """A worker in a container's root; while one that does not run is worked at, nothing starts it.

    `volumes`: what is mounted at their places is seen, and not what the layer has below it.
    """
    from launcher.supervisor import starting

    held = _held(container)
    if held is None:
        process, pid = _first_process(container)
        try:
            made = container.config
            spec = config.spec(made, container.directory, (-1, -1, -1), b"")
            with _entered(pid, rootfs.in_order(spec) if volumes else [], body) as channel:
                yield channel
        finally:
            os.close(process)
        return
    try:
        image = starting.image_of(store, container)
        starting.settled(container)
        made = container.config
        spec = config.spec(made, container.directory, (-1, -1, -1), b"")._replace(remove=False)

        def serve(channel: Channel, device: Channel) -> int:
            return server.run(channel, device, image, spec, held, lambda: None)

        with _mounted(made.ids, spec, serve, body, volumes) as channel:
            yield channel
    finally:
        lock.release(held)


@contextmanager
def in_image(image: Image, ids: IdMap | None = None) -> Iterator[Channel]:
    """A worker in an image's root, where nothing can be written."""
    chosen = ids or idmap.choose().map

    def union() -> Union:
        from unionfs.open import open_union

        return open_union(image.open_tree(), squash=(0, 0) if chosen.single else None)

    def serve(channel: Channel, device: Channel) -> int:
        return server.run_read_only(channel, device, union)

    with _mounted(chosen, None, serve, worker, False) as channel:
        yield channel


def _held(container: Container) -> int | None:
    """The lock of a container that does not run; None for one that does."""
    deadline = time.monotonic() + _PATIENCE
    while not isinstance(container.observe(), state.Running | state.Paused):
        held = lifecycle.hold(container)
        if held is not None:
            return held
        if time.monotonic() > deadline:
            raise UfsError(f"container {container.name} is in use by another command; try again when that has ended")
        time.sleep(_PAUSE)  # it is starting or ending, or another copy is under way
    return None


def _first_process(container: Container) -> tuple[int, int]:
    """(pidfd, pid) of process 1 of a container that runs or is paused. UfsError where it has ended."""
    seen = container.observe()
    gone = UfsError(f"container {container.name} has just ended; try again")
    if not isinstance(seen, state.Running | state.Paused):
        raise gone
    try:
        process = os.pidfd_open(seen.pid)
    except ProcessLookupError as error:
        raise gone from error
    # From here on the number cannot get another meaning; whether it had one before is told by these two.
    if state.ticks(seen.pid) != seen.ticks or not lock.held(container.directory):
        os.close(process)
        raise gone
    return process, seen.pid


@contextmanager
def _entered(pid: int, volumes: list[Volume], body: Body) -> Iterator[Channel]:
    mounts = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    owner = syscalls.owner_of(mounts)
    ours, theirs = Channel.pair("command", "copier in the container")

    def child() -> int:
        ours.close()
        try:
            _import_all()
            syscalls.setns(owner, syscalls.CLONE_NEWUSER)
            syscalls.setns(mounts, syscalls.CLONE_NEWNS)
            _confine()
            syscalls.unshare(syscalls.CLONE_NEWNS)
            syscalls.make_private()
            _stand_alone(volumes)
        except Exception as error:  # noqa: BLE001 the command tells it
            theirs.give_up("cannot enter the container", error)
            return 125
        return body(theirs)

    worker_pid = namespaces.fork(child)
    os.close(mounts)
    os.close(owner)
    theirs.close()
    with _ended(worker_pid, ours):
        yield ours


def _stand_alone(volumes: list[Volume]) -> None:
    """Make a copy of the root mount, without those on it, the root; with the volumes that can be found."""
    binds = []
    for volume in volumes:
        with suppress(OSError):  # unmounted or moved by a process inside, which is its own affair
            resolve = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
            root = os.open("/", os.O_PATH | os.O_CLOEXEC)
            source = syscalls.openat2(volume.target, os.O_PATH, resolve=resolve, directory=root)
            binds.append((volume.target, syscalls.clone_tree("", directory=source)))
            os.close(source)
            os.close(root)
    alone = syscalls.clone_tree("/", recursive=False)
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    syscalls.attach(alone, root)
    os.fchdir(alone)
    os.chroot(".")
    os.chdir("/")
    _attach(binds)


def _attach(binds: list[tuple[str, int]]) -> None:
    for target, tree in binds:
        with suppress(FileNotFoundError, NotADirectoryError):  # nothing to mount on yet: a start makes it
            place = syscalls.openat2(
                target, os.O_PATH, resolve=syscalls.RESOLVE_NO_MAGICLINKS | syscalls.RESOLVE_IN_ROOT
            )
            syscalls.attach(tree, place)
            os.close(place)
        os.close(tree)


@contextmanager
def _mounted(
    ids: IdMap, spec: Spec | None, serve: Callable[[Channel, Channel], int], body: Body, volumes: bool
) -> Iterator[Channel]:
    device_end, server_end = Channel.pair("copier", "file system server")
    ours, theirs = Channel.pair("command", "copier")
    server_pid, to_server = namespaces.fork_mapped(
        ids, "file system server", lambda channel: serve(channel, server_end), meanwhile=server.preload
    )
    server_end.close()
    user_namespace = os.open(f"/proc/{server_pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)

    def child() -> int:
        ours.close()
        to_server.close()
        try:
            _import_all()
            syscalls.setns(user_namespace, syscalls.CLONE_NEWUSER)
            syscalls.unshare(syscalls.CLONE_NEWNS)
            syscalls.make_private()
            binds = []
            for volume in rootfs.in_order(spec) if spec is not None and volumes else []:
                if volume.kind == "tmpfs":  # there is none without the container
                    continue
                with suppress(UfsError):  # it is not there any more: a start would fail, what is in the layer is there
                    binds.append((volume.target, rootfs.taken(volume)))
            fresh = rootfs.claimed(spec) if spec is not None and volumes else []
            # An image's root lies over any directory that is there for everybody.
            place = spec.directory if spec is not None else "/proc"
            init.mount_root(device_end, place)
            _confine()
            rootfs.pivot(place)
            rootfs.fill(fresh)  # as a start would; what is copied there then comes on top
            _attach(binds)
        except Exception as error:  # noqa: BLE001 the command tells it
            theirs.give_up("cannot mount the container's root", error)
            return 125
        return body(theirs)

    worker_pid = namespaces.fork(child)
    os.close(user_namespace)
    device_end.close()
    theirs.close()
    try:
        with _ended(worker_pid, ours):
            yield ours
    finally:
        with suppress(PeerGone):
            to_server.send("over")
        failure = None
        while (message := to_server.receive()) is not None:
            failure = message if message.kind == "error" else failure
        os.waitpid(server_pid, 0)
        to_server.close()
        if failure is not None:
            raise UfsError(failure.fields["text"])


def _import_all() -> None:
    """What is imported in the container would be looked for there; in a child, so that the command needs none of it."""
    import bz2  # noqa: F401
    import encodings.ascii  # noqa: F401
    import gzip  # noqa: F401
    import lzma  # noqa: F401
    import zlib  # noqa: F401

    import launcher.container.changes
    import launcher.transfer.worker  # noqa: F401


def _confine() -> None:
    """As what is at work in a container from here on."""
    init.import_nothing_more()
    prctl.set_pdeathsig(signal.SIGKILL)
    os.umask(0)


@contextmanager
def _ended(pid: int, channel: Channel) -> Iterator[None]:
    """The worker ends with the use of it, and is waited for."""
    try:
        yield
    finally:
        channel.close()
        os.waitpid(pid, 0)
