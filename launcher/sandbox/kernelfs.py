"""/proc and /sys of a container, and what of them is covered.

Needed most where root runs `ufs-run`: the ids are the host's then, and files of /proc that the kernel guards by
owner alone, such as most of /proc/sys, would be writable in the container. The lists are Docker's.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable

from launcher.errors import UfsError
from launcher.sandbox import syscalls
from launcher.sandbox.paths import Targets

_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
_QUIET = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV | syscalls.MOUNT_ATTR_NOEXEC


class KernelFiles:
    """/proc and /sys as detached mounts, taken while the host's can still be seen."""

    def __init__(self) -> None:
        try:
            self._proc = syscalls.new_mount("proc", {}, _QUIET)
        except PermissionError as error:
            # mount_too_revealing() of fs/namespace.c: a new /proc would uncover what is covered in this one.
            raise UfsError(
                "the kernel refuses a fresh /proc because parts of this machine's /proc are covered, as in a "
                "container; start that container with its /proc uncovered (podman: --security-opt unmask=ALL, "
                "Docker: --security-opt systempaths=unconfined)",
                125,
            ) from error
        # A new sysfs belongs to whoever owns the network namespace, and that is the host's: so the host's is
        # bound, with all that lies below, because inherited mounts cannot be cloned apart.
        self._sys = syscalls.clone_tree("/sys")
        syscalls.set_mount_attributes(self._sys, syscalls.MOUNT_ATTR_RDONLY | _QUIET, recursive=True)

    def attach(self, targets: Targets) -> None:
        """Mount both; /proc and /sys must be plain directories of the image (CVE-2019-16884)."""
        for tree, path in ((self._proc, "/proc"), (self._sys, "/sys")):
            target = targets.directory(path, plain=True)
            syscalls.attach(tree, target)
            os.close(target)
            os.close(tree)


def cover(*, nested: bool) -> None:
    """Hide and protect parts of the mounted /proc and /sys; needs the container's /dev/null.

    `nested`: the kernel lets no container inside have a /proc of its own while parts of this one are covered
    (mount_too_revealing() of fs/namespace.c), so none is.
    """
    if nested:
        _mask(path for path in _MASKED if not path.startswith("/proc/"))
        return
    for path in _READ_ONLY:
        target = _find(path)
        if target is None:
            continue
        tree = syscalls.clone_tree("", directory=target)
        syscalls.set_mount_attributes(tree, syscalls.MOUNT_ATTR_RDONLY | _QUIET, recursive=True)
        _put(tree, target)
    _mask(_MASKED)


def _mask(paths: Iterable[str]) -> None:
    for path in paths:
        target = _find(path)
        if target is None:
            continue
        if stat.S_ISDIR(os.fstat(target).st_mode):
            nothing = syscalls.new_mount("tmpfs", {"size": "0", "mode": "555"}, _QUIET | syscalls.MOUNT_ATTR_RDONLY)
            _put(nothing, target)
        else:
            _put(syscalls.clone_tree("/dev/null"), target)


def _find(path: str) -> int | None:
    try:
        return syscalls.openat2(path, os.O_PATH, resolve=syscalls.RESOLVE_NO_SYMLINKS)
    except OSError as error:
        # Which of these files exist depends on the kernel's configuration; EACCES: not even visible here.
        if error.errno in (errno.ENOENT, errno.EACCES):
            return None
        raise


def _put(tree: int, target: int) -> None:
    syscalls.attach(tree, target)
    os.close(tree)
    os.close(target)
