"""The container's root: the merged mount, what is mounted in it, and the change of root.

Order matters. Everything of the host that the container gets is cloned as a detached mount *before* the change of
root, so that no name of the image plays a part in finding it. It is attached *after* the change, so that a
target can only be inside the container, whatever links the image holds.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from launcher.errors import UfsError, describe
from launcher.sandbox import single, syscalls
from launcher.sandbox.devices import Devices
from launcher.sandbox.kernelfs import KernelFiles, cover
from launcher.sandbox.paths import Targets
from launcher.sandbox.spec import Spec, Volume

if TYPE_CHECKING:
    from launcher.sandbox.filling import Claim

GENERATED = ("resolv.conf", "hosts", "hostname")
"""Files that the launcher writes into the container's directory, bound to /etc."""

_ATTRIBUTES = {
    "nosuid": syscalls.MOUNT_ATTR_NOSUID,
    "nodev": syscalls.MOUNT_ATTR_NODEV,
    "noexec": syscalls.MOUNT_ATTR_NOEXEC,
}

_WRITABLE_WHEN_READ_ONLY = ("/run", "/tmp", "/var/tmp")


class _Bind(NamedTuple):
    volume: Volume
    tree: int
    is_directory: bool
    generated: bool


class Parts:
    """What is taken from the host before the change of root."""

    def __init__(self, spec: Spec, received: dict[str, int]) -> None:
        self.kernel = KernelFiles()
        self.devices = Devices(spec.ids, fuse=spec.nested)
        self.single = single.Settings(spec.directory) if spec.ids.single else None
        self.binds = [_taken(volume, volume not in spec.volumes, received) for volume in in_order(spec)]
        self.fresh = claimed(spec)
        # Clones of their own, since those that are shown may be read-only.
        self.given_away = [(volume, _cloned(volume)) for volume in spec.volumes if "U" in volume.options]
        if self.given_away:
            import launcher.sandbox.owning  # noqa: F401 there is no importing after the change of root


def receiving(spec: Spec) -> dict[str, int]:
    """By target the clones that later mounts of the host reach (rslave), taken before this namespace is private."""
    return {volume.target: taken(volume) for volume in spec.volumes if "rslave" in volume.options}


def claimed(spec: Spec) -> list[Claim]:
    """The volumes that this container is to fill."""
    if not any(volume.kind == "volume" for volume in spec.volumes):
        return []
    from launcher.sandbox import filling

    return filling.claim(spec.volumes)


def fill(claims: list[Claim]) -> None:
    """Fill them, after the change of root and before anything else is mounted where an image's directories are."""
    if claims:
        from launcher.sandbox import filling  # imported before the change of root, by `claimed`

        filling.fill(claims)


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
    fill(parts.fresh)
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
        # What the image calls a volume and no place can be made for keeps nothing from running.
        if bind.volume.target in spec.directories and not targets.make(bind.volume.target):
            os.close(bind.tree)
        else:
            _attach_bind(bind, targets)
    _give_away(spec, parts)
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


def _taken(volume: Volume, generated: bool, received: dict[str, int]) -> _Bind:
    tree = received[volume.target] if volume.target in received else taken(volume)
    return _Bind(volume, tree, stat.S_ISDIR(os.fstat(tree).st_mode), generated)


def taken(volume: Volume) -> int:
    """What a volume shows, as a detached mount that is as its options say. UfsError where it is not there."""
    if volume.kind == "tmpfs":
        return _new_tmpfs(volume)
    tree, attributes = _cloned(volume), _attributes(volume)
    if attributes:
        syscalls.set_mount_attributes(tree, attributes, recursive=True)
    return tree


def _cloned(volume: Volume) -> int:
    shown = f"volume {volume.name}" if volume.kind == "volume" else f"-v {volume.source}:{volume.target}"
    try:
        return syscalls.clone_tree(volume.source)
    except FileNotFoundError as error:
        more = f"; ufs volume rm {volume.name} forgets it" if volume.kind == "volume" else ""
        raise UfsError(f"{shown}: {volume.source} does not exist{more}", 125) from error
    except PermissionError as error:
        raise UfsError(f"{shown}: no permission to reach {volume.source}", 125) from error


def _attributes(volume: Volume) -> int:
    bits = syscalls.MOUNT_ATTR_RDONLY if volume.read_only else 0
    for word, bit in _ATTRIBUTES.items():
        if word in volume.options:
            bits |= bit
    return bits


def _new_tmpfs(volume: Volume) -> int:
    options = dict(word.split("=", 1) for word in volume.options if "=" in word)
    try:
        return syscalls.new_mount("tmpfs", {"mode": "1777", **options}, _attributes(volume))
    except OSError as error:
        # What the kernel has against an option is in the text: fsconfig(tmpfs, size=x).
        raise UfsError(f"--tmpfs {volume.target}: {describe(error)}", 125) from error


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


def _give_away(spec: Spec, parts: Parts) -> None:
    """Volumes with the option U to the user of the command. With one id all files are that user's in any case."""
    if not parts.given_away:
        return
    from launcher.sandbox import owning, user

    who = user.from_container(spec.user)
    for volume, tree in parts.given_away:
        if not spec.ids.single:
            owning.give(tree, who, f"-v {volume.name or volume.source}:{volume.target}:U")
        os.close(tree)


def _temporary(path: str, targets: Targets) -> None:
    mode = "755" if path == "/run" else "1777"
    quiet = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV
    tree = syscalls.new_mount("tmpfs", {"mode": mode}, quiet)
    target = targets.directory(path)
    syscalls.attach(tree, target)
    os.close(tree)
    os.close(target)
