"""The file system server of one container: its own process, which sees the host and never the mount.

It lives in the container's user namespace, because the owners of the upper's files are ids of that namespace, and
in a mount namespace of its own, made before the FUSE mount: `host` cannot find itself in itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from launcher.container.removal import remove_tree, vanish
from launcher.errors import UfsError
from launcher.sandbox.protocol import Channel, PeerGone
from launcher.sandbox.spec import Spec
from unionfs.tree import Tree

if TYPE_CHECKING:
    from unionfs.union import Union


class TreeSource(Protocol):
    """What the server needs of an image: `launcher.image.resolve.Image` has it."""

    def open_tree(self) -> Tree:
        """The image's read-only tree."""


def run(channel: Channel, init: Channel, image: TreeSource, spec: Spec, lock: int, orphaned: Callable[[], None]) -> int:
    """Serve the container's root until its mount is gone; the exit status.

    `init` is the channel on which the mounted /dev/fuse comes. Ends with the container, also when the launcher was
    killed before it could ask for anything: then the channels end. `lock` marks the container as in use. `orphaned` is
    called when the launcher has ended before the container.
    """
    os.setsid()  # a terminal's signals are for the launcher
    os.umask(0o022)  # the container's root is what it makes first
    _keep_only(2, channel.fileno(), init.fileno(), lock)
    try:
        _serve(channel, init, image, spec)
    except PeerGone:
        return 1  # the launcher or init ended first, and it is theirs to say why
    except Exception as error:  # noqa: BLE001 the launcher tells it
        channel.give_up("the file system server failed", error)
        return 1
    finally:
        init.close()
        # Until "over", or its end, the launcher may still write in the container's directory.
        if channel.receive() is None and not spec.remove:
            orphaned()
        # Nothing but temporaries is in the work directory, and nobody continues them.
        remove_tree(vanish(spec.directory) if spec.remove else spec.work)
    return 0


def run_read_only(channel: Channel, init: Channel, opened: Callable[[], Union]) -> int:
    """Serve a union without an upper until its mount is gone; the exit status. `channel` and `init` as of `run`."""
    from unionfs.serve import serve

    os.setsid()
    _keep_only(2, channel.fileno(), init.fileno())
    try:
        union = opened()
        try:
            device = init.expect("device").descriptors[0]
        except UfsError:
            union.close()
            raise
        serve(union, device)
    except PeerGone:
        return 1
    except Exception as error:  # noqa: BLE001 the command tells it
        channel.give_up("the file system server failed", error)
        return 1
    finally:
        init.close()
    return 0


def preload() -> None:
    """Import what serving needs, while the launcher has the id map written."""
    for name in ("unionfs.open", "unionfs.serve"):
        import_module(name)


def _serve(channel: Channel, init: Channel, image: TreeSource, spec: Spec) -> None:
    from unionfs.open import open_union
    from unionfs.serve import serve

    tree = image.open_tree()
    fresh = not os.path.isdir(spec.upper)
    for path, mode in ((spec.upper, 0o755), (spec.work, 0o700)):
        os.makedirs(path, mode, exist_ok=True)
    union = open_union(tree, spec.upper, spec.work, (0, 0) if spec.ids.single else None)
    if fresh:
        union.dress_root()
    try:
        device = init.expect("device").descriptors[0]
    except UfsError:
        union.close()
        raise
    serve(union, device, spec.engine)


def _keep_only(*kept: int) -> None:
    """Close every other descriptor: one that the caller left open must not live as long as the container."""
    nothing = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    before = 2
    for number in sorted({*kept, 2}):
        os.closerange(before + 1, number)
        before = number
    os.closerange(before + 1, os.sysconf("SC_OPEN_MAX"))
