"""`ufs mount` and `ufs umount`: an image as a read-only directory."""

from __future__ import annotations

import errno
import os

import click

from launcher.cli import wanted
from launcher.cli.images import ImageName
from launcher.errors import UfsError
from launcher.image.resolve import HostImage, StoredImage
from launcher.image.store import Store
from unionfs import mounts
from unionfs.serve import ENGINES
from unionfs.tree import Tree

_TYPES = ("fuse.ufs", "fuse.ufs-mount")
"""Of what `ufs` and `ufs-mount` mount, unless the latter is told otherwise (subtype=)."""

_OF_IMAGE = ("fuse.ufs", "ufs-image")
"""Type and source of mounts whose server opens no paths, so that no other server can wait for itself through them."""


@click.command(
    epilog="""\b
Examples:
  mkdir alpine && ufs mount alpine alpine && ls alpine
  ufs mount ./saved.tar /mnt
  ufs mount host /tmp/host       the machine itself, read-only
"""
)
@click.argument("image", type=ImageName())
@click.argument("directory", type=click.Path())
@click.option("--engine", type=click.Choice(ENGINES), default="direct", show_default=True, help="Front end.")
@click.option(
    "--pull", "when", type=click.Choice([wanted.MISSING, wanted.ALWAYS, wanted.NEVER]), default=wanted.MISSING,
    show_default=True, help="When the image is got from its registry.",
)  # fmt: skip
def mount(image: str, directory: str, engine: str, when: str) -> None:
    """Show the files of IMAGE in DIRECTORY, read-only.

    IMAGE is a name or id in the store, the path of an archive or layout, or "host". Returns once the mount
    answers; `ufs umount DIRECTORY` ends it. Owners are those of the image. An ordinary user's mount is for
    that user alone, who may read everything in an image; a mount of root's is for all, with the image's modes.
    """
    target = _absolute(directory)
    if target in ufs_mounts():
        raise UfsError(f"{directory} is a mount of ufs already; ufs umount {directory} ends it")
    if not os.path.isdir(target):
        reason = "is not a directory" if os.path.lexists(target) else "does not exist; make it first with mkdir"
        raise UfsError(f"{directory} {reason}")
    found = wanted.image(image, Store(), when)
    # A directory is known to be one before anything is mounted; a tree of live directories must know its mount.
    if isinstance(found, StoredImage):
        _serve(_mount(target, _OF_IMAGE[1]), found.open_tree(), target, engine)
    else:
        fd = _mount(target, "ufs")
        try:
            tree = _host_tree(found)
        except BaseException:
            _unmount(target)
            raise
        _serve(fd, tree, target, engine)


@click.command(
    epilog="""\b
Example:
  ufs umount /tmp/alpine
"""
)
@click.argument("directory", type=click.Path())
def umount(directory: str) -> None:
    """End a mount of `ufs mount` or `ufs-mount`. Programs that still use it keep what they have open."""
    target = _absolute(directory)
    if target not in ufs_mounts():
        raise UfsError(f"{directory} is not a mount of ufs; findmnt -t {','.join(_TYPES)} lists those")
    _unmount(target)


def ufs_mounts() -> list[str]:
    """The mount points of all our mounts in this mount namespace, in the order of mounting."""
    return [entry.target for entry in mounts.entries() if entry.type in _TYPES]


def _host_tree(host: HostImage) -> Tree:
    """The machine's directories, without the mounts that are served from live directories, this one included.

    Each such server passes over the mounts that are older than its own look at them, which comes after its own
    mounting. So of two servers at least one passes over the other, and neither can wait for the other in a circle.
    """
    ours = [entry for entry in mounts.entries() if entry.type in _TYPES]
    points = [entry.target for entry in ours if (entry.type, entry.source) != _OF_IMAGE and _reachable(entry.target)]
    return host.open_tree(tuple(map(os.fsencode, points)))


def _reachable(point: str) -> bool:
    """Whether this user can get to a mount point at all; if not, neither can the server."""
    try:
        os.stat(os.path.dirname(point))
    except OSError as error:
        # No permission above it; unmounted and removed since it was listed; below the mount of a dead server.
        if error.errno in (errno.EACCES, errno.ENOENT, errno.ENOTCONN):
            return False
        raise
    return True


def _mount(target: str, source: str) -> int:
    """Mount on `target` as root or by fusermount3; the descriptor to serve."""
    from unionfs.background import hold_signals
    from unionfs.fuse import mount as fuse

    hold_signals()
    if os.geteuid() == 0:
        fd = fuse.open_device()
        try:
            fuse.mount(fd, target, source=source, read_only=True)
        except OSError as error:
            os.close(fd)
            raise UfsError(f"{target}: {error.strerror}; may this root mount? (CAP_SYS_ADMIN)") from None
        return fd
    return fuse.fusermount(target, ["ro"], source=source)


def _serve(fd: int, tree: Tree, target: str, engine: str) -> None:
    """Serve in the background; return once the mount answers."""
    from unionfs.background import run
    from unionfs.open import open_union
    from unionfs.serve import serve

    try:
        union = open_union(tree)
        run(lambda ready: serve(union, fd, engine, ready), lambda: _unmount(target))
    except BaseException:
        _unmount(target)
        raise


def _unmount(target: str) -> None:
    from unionfs.fuse import mount as fuse

    try:
        fuse.unmount(target)
    except OSError as error:
        if error.errno != errno.EINVAL:  # not mounted any more: somebody was quicker
            raise


def _absolute(directory: str) -> str:
    """The path as the kernel lists it, without touching the last component: its server may be dead."""
    above, name = os.path.split(os.path.abspath(directory))
    if not name:
        return above
    path = os.path.join(os.path.realpath(above), name)
    try:
        link = os.readlink(path)
    except OSError:  # no link, not there, or a dead mount: what follows says which
        return path
    return os.path.realpath(os.path.join(above, link))
