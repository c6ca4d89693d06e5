"""What `ufs-mount` does: a union of the directories that the options name, mounted and served."""

from __future__ import annotations

import logging
import os

from unionfs import mountflags
from unionfs.arrangement import check_apart, check_directory, check_target, identity, inside
from unionfs.background import hold_signals, run
from unionfs.features import Features
from unionfs.fuse import mount as fuse
from unionfs.fuse import wire
from unionfs.live.directories import DirectoryStack
from unionfs.open import open_union
from unionfs.options import OptionError, Options
from unionfs.ownership import Translated
from unionfs.serve import serve
from unionfs.union import Union

SOURCE, SUBTYPE = "ufs", "ufs-mount"
"""What shows as device and type. By the latter mount(8) finds the program again that can remount it."""


def mount(options: Options, target: str, engine: str, foreground: bool, source: str = "") -> None:
    """Mount on `target`; returns when the mount answers. Raises `OSError` and `OptionError` with nothing mounted."""
    for role, named in (("mount point", target), ("upperdir", options.upper), ("workdir", options.work)):
        if named == "":  # os.path would take it for the current directory
            raise OptionError(f"{role}: the name is empty; name a directory")
    target = os.path.realpath(target)
    check_target(target)
    for path in options.lower:
        check_directory("lowerdir", os.path.abspath(path))
    for role, named in (("upperdir", options.upper), ("workdir", options.work)):
        if named is not None:
            check_directory(role, named)
    check_apart(options, target)
    union = _union(options, target)
    if union.upper_or_none is not None:
        union.upper_or_none.note_mount_point(target)
    hold_signals()
    fd = _mount(options, target, options.source or source or SOURCE)
    try:
        run(
            lambda ready: serve(union, fd, engine, ready, writeback=options.writeback),
            lambda: fuse.unmount(target),
            foreground,
        )
    except BaseException:
        fuse.unmount(target)
        raise


def _union(options: Options, target: str) -> Union:
    lower = [os.fsencode(os.path.abspath(path)) for path in options.lower]
    timeout = wire.FOREVER if options.timeout is None else min(options.timeout, wire.FOREVER)
    own = [path for path in (options.upper, options.work) if path is not None]
    within = [path for path in own if any(inside(path, layer) for layer in options.lower)]
    tree = DirectoryStack(
        lower,
        hide=map(identity, within),
        hold=[identity(os.path.join(path, "..")) for path in within],
        skip=[os.fsencode(target)],  # it may lie below a lower directory: the server must not wait for itself
        count=not options.static_nlink,
        timeout=timeout,
    )
    translated = None
    if options.uid_map or options.gid_map:
        translated = Translated(options.uid_map, options.gid_map)
    features = Features(
        xattrs=options.xattrs,
        acls=options.acls and options.xattrs,
        redirects=options.redirects,
        count_links=not options.static_nlink,
        access=mountflags.NOATIME if options.read_only else options.flags.on & mountflags.ACCESS,
        sync=bool(options.flags.on & mountflags.SYNCHRONOUS),
        sync_names=bool(options.flags.on & (mountflags.SYNCHRONOUS | mountflags.DIRSYNC)),
    )
    return open_union(
        tree, options.upper, options.work, options.squash, translated, options.overrides, options.volatile, features
    )


def _mount(options: Options, target: str, source: str) -> int:
    """Mount by mount(2) or fusermount3; the descriptor to serve."""
    subtype = options.subtype or SUBTYPE
    if os.geteuid() == 0:
        fd = fuse.open_device()
        allow_other = options.allow_other or not options.allow_root
        flags = options.flags.over(mountflags.RDONLY if options.read_only else 0)
        try:
            fuse.mount(fd, target, source=source, subtype=subtype, allow_other=allow_other, flags=flags)
        except PermissionError as error:
            what = "root has no right to mount here: start it below unshare -Urm, or the container with CAP_SYS_ADMIN"
            raise fuse.MountError(error.errno, f"cannot mount {target}: {what}") from error
        if options.private:
            fuse.make_private(target)
        return fd
    passed, beyond = options.flags.for_fusermount()
    for name in [*beyond, *["allow_root"] * options.allow_root, *["private"] * options.private]:
        logging.getLogger("unionfs").warning("option %r has no effect: only root can have it", name)
    wanted = list(dict.fromkeys([*passed, *["ro"] * options.read_only]))
    wanted += ["allow_other"] * options.allow_other
    wanted += ["default_permissions"] * (options.default_permissions or not options.read_only)
    return fuse.fusermount(target, wanted, source=source, subtype=subtype)
