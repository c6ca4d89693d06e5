"""The container's root: the merged mount, what is mounted in it, and the change of root.

Order matters. Everything of the host that the container gets is cloned as a detached mount *before* the change of
root, so that no name of the image plays a part in finding it. It is attached *after* the change, so that a
target can only be inside the container, whatever links the image holds.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from launcher.errors import UfsError
from launcher.sandbox import single, syscalls
from launcher.sandbox.devices import Devices
from launcher.sandbox.kernelfs import KernelFiles, cover
from launcher.sandbox.paths import Targets
from launcher.sandbox.spec import Spec, Volume

GENERATED = ("resolv.conf", "hosts", "hostname")
"""Files that the launcher writes into the container's directory, bound to /etc."""

_WRITABLE_WHEN_READ_ONLY = ("/run", "/tmp", "/var/tmp")


class _Bind(NamedTuple):
    volume: Volume
    tree: int
    is_directory: bool
    generated: bool


class Parts:
    """What is taken from the host before the change of root."""

    def __init__(self, spec: Spec) -> None:
        self.kernel = KernelFiles()
        self.devices = Devices(spec.ids, fuse=spec.nested)
        self.single = single.Settings(spec.directory) if spec.ids.single else None
        self.binds = [_taken(volume, volume not in spec.volumes) for volume in in_order(spec)]


def pivot(directory: str) -> None:
    """Make the file system mounted on `directory` the root; the host's is gone from this namespace then."""
    os.chdir(directory)
    syscalls.pivot_root_here()
    # The old root is stacked upon the new one at "."; detached, it is out of reach for good.
    syscalls.detach(".")
    os.chdir("/")


def furnish(spec: Spec, parts: Parts) -> list[str]:
    """Attach everything below the new root; the names that had to be made in the container's layer."""
    targets = Targets()
    parts.kernel.attach(targets)
    parts.devices.attach(targets)
    cover(nested=spec.nested)
    os.close(targets.directory("/tmp", mode=0o1777))
    given = {volume.target for volume in spec.volumes}
    if spec.read_only:
        for path in _WRITABLE_WHEN_READ_ONLY:
            if path not in given:
                _temporary(path, targets)
    for path in (*spec.directories, spec.working_directory):
        # Below a volume it would be the host's directory in which something is made.
        if not any(f"{path}/".startswith(f"{target}/") for target in given):
            targets.make(path)
    for bind in parts.binds:
        _attach_bind(bind, targets)
    if parts.single is not None:
        parts.single.attach(targets)
    targets.link("/etc/mtab", "/proc/mounts")  # as all engines do: df and mount(8) of older images read it
    if spec.read_only:
        root = syscalls.openat2("/", os.O_PATH, resolve=syscalls.RESOLVE_NO_SYMLINKS)
        syscalls.set_mount_attributes(root, syscalls.MOUNT_ATTR_RDONLY, recursive=False)
        os.close(root)
    return targets.created


def in_order(spec: Spec) -> list[Volume]:
    """Parents before what is mounted below them; a volume on a generated file's place replaces it."""
    given = {volume.target for volume in spec.volumes}
    generated = [Volume(f"{spec.directory}/{name}", f"/etc/{name}", False) for name in GENERATED]
    every = [*spec.volumes, *(volume for volume in generated if volume.target not in given)]
    return sorted(every, key=lambda volume: volume.target.count("/"))


def _taken(volume: Volume, generated: bool) -> _Bind:
    tree = taken(volume)
    return _Bind(volume, tree, stat.S_ISDIR(os.fstat(tree).st_mode), generated)


def taken(volume: Volume) -> int:
    """What a volume shows of the host, as a detached mount. UfsError where it is not there."""
    try:
        tree = syscalls.clone_tree(volume.source)
    except FileNotFoundError as error:
        raise UfsError(f"-v {volume.source}:{volume.target}: {volume.source} does not exist", 125) from error
    except PermissionError as error:
        raise UfsError(f"-v {volume.source}:{volume.target}: no permission to reach {volume.source}", 125) from error
    if volume.read_only:
        syscalls.set_mount_attributes(tree, syscalls.MOUNT_ATTR_RDONLY, recursive=True)
    return tree


def _attach_bind(bind: _Bind, targets: Targets) -> None:
    path = bind.volume.target
    if bind.generated:
        target = targets.own_file(path)
    else:
        target = targets.directory(path) if bind.is_directory else targets.file(path)
    if target is not None:
        syscalls.attach(bind.tree, target)
        os.close(target)
    os.close(bind.tree)


def _temporary(path: str, targets: Targets) -> None:
    mode = "755" if path == "/run" else "1777"
    quiet = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV
    tree = syscalls.new_mount("tmpfs", {"mode": mode}, quiet)
    target = targets.directory(path)
    syscalls.attach(tree, target)
    os.close(tree)
    os.close(target)
