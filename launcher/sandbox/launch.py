"""Starting a container's processes in order: see `protocol` for the drawing."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from launcher.container.removal import remove_tree
from launcher.errors import UfsError
from launcher.sandbox import namespaces, server
from launcher.sandbox.monitor import Child, Processes
from launcher.sandbox.protocol import Channel, PeerGone
from launcher.sandbox.server import TreeSource
from launcher.sandbox.spec import Spec


def start(
    spec: Spec, image: TreeSource, lock: int, *, meanwhile: Callable[[], None], orphaned: Callable[[], None]
) -> Processes:
    """Make the processes of one container, which wait for "go" then. The process must have one thread.

    Raises `UfsError` when they could not be made; no process is left then. `lock` is kept by the server too.
    `meanwhile` is called while others work; `orphaned` in the server, where this process is killed before the container
    has ended.
    """
    init_end, server_end = Channel.pair("container's first process", "file system server")

    def serve(channel: Channel) -> int:
        return server.run(channel, server_end, image, spec, lock, orphaned)

    def abandon() -> None:
        if spec.remove:  # nothing in it belongs to other ids yet
            remove_tree(spec.directory)

    server_pid, to_server = namespaces.fork_mapped(
        spec.ids, "file system server", serve, meanwhile=server.preload, abandon=abandon
    )
    server_end.close()
    server_child = Child(server_pid)
    try:
        init_pid, to_init = _start_init(spec, server_pid, to_server, init_end, meanwhile)
    except UfsError:
        # Without a peer the server ends by itself; its own reason, if it has one, is the better one.
        init_end.close()
        with suppress(PeerGone):
            to_server.send("over")
        server_child.reap()
        message = to_server.receive()
        if message is not None and message.kind == "error":
            raise UfsError(message.fields["text"], message.fields["status"]) from None
        raise
    init_end.close()
    return Processes(Child(init_pid), server_child, to_init, to_server)


def _start_init(
    spec: Spec, server_pid: int, to_server: Channel, init_end: Channel, meanwhile: Callable[[], None]
) -> tuple[int, Channel]:
    """Fork the helper that makes the namespaces and init, and see it end: (pid of init, channel to it)."""
    # Not before the server is forked: it imports what it needs at the same time, on another CPU where there is one.
    import prctl

    from launcher.sandbox import init

    prctl.set_child_subreaper(1)
    to_init, launcher_end = Channel.pair("launcher", "container's first process")
    user_namespace = os.open(f"/proc/{server_pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)

    def helper() -> int:
        to_init.close()
        to_server.close()
        return init.start(launcher_end, init_end, spec, user_namespace)

    helper_pid = namespaces.fork(helper)
    os.close(user_namespace)
    launcher_end.close()
    meanwhile()
    try:
        started = to_init.expect("started")
    finally:
        # Until it is gone init is not this process's child, and could not ask to die with it.
        os.waitpid(helper_pid, 0)
    return int(started.fields["pid"]), to_init
