"""What containers use, from /proc: their processes' time, memory and input/output. Nothing is asked of a supervisor.

Containers get no control group of their own, so there is no account of them as a whole. What is counted are the
processes in the container's pid namespace and their descendants (also in namespaces below), with those that they have
waited for. Reading and writing files is done by the file system server, so its bytes count as well.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import NamedTuple

_GONE = (FileNotFoundError, ProcessLookupError)


class Process(NamedTuple):
    """A process of this machine. `ticks`: of processor time, with that of children it has waited for."""

    parent: int
    namespace: str
    ticks: int
    threads: int


class Sample(NamedTuple):
    """A container at the monotonic moment `at`. Seconds and bytes; None where this user may not know it."""

    at: float
    cpu: float
    memory: int | None
    limit: int
    read: int | None
    written: int | None
    threads: int


def processes() -> dict[int, Process]:
    """All that can be seen, by pid; those of other users have no namespace."""
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as stream:
                fields = stream.read().rpartition(b")")[2].split()
        except _GONE:
            continue
        namespace = ""
        with suppress(*_GONE, PermissionError):
            namespace = os.readlink(f"/proc/{name}/ns/pid")
        # proc_pid_stat(5): 4 is the parent, 14 to 17 are utime, stime, cutime and cstime, 20 is the number of threads.
        found[int(name)] = Process(int(fields[1]), namespace, sum(map(int, fields[11:15])), int(fields[17]))
    return found


def sample(init: int, server: int, everything: dict[int, Process]) -> Sample | None:
    """The container whose process 1 is `init`; None where that has ended."""
    pids = members(init, everything)
    if not pids:
        return None
    counted = [_io(pid) for pid in [*pids, server]]
    memory = [_memory(pid) for pid in pids]
    return Sample(
        time.monotonic(),
        sum(everything[pid].ticks for pid in pids) / os.sysconf("SC_CLK_TCK"),
        _total(memory),
        limit(init),
        _total([one[0] for one in counted]),
        _total([one[1] for one in counted]),
        sum(everything[pid].threads for pid in pids),
    )


def members(init: int, everything: dict[int, Process]) -> set[int]:
    """The processes of a container."""
    if init not in everything or not everything[init].namespace:
        return set()
    namespace = everything[init].namespace
    found = {pid for pid, process in everything.items() if process.namespace == namespace}
    fresh = found
    while fresh:
        fresh = {pid for pid, process in everything.items() if process.parent in fresh} - found
        found = found | fresh
    return found


def limit(pid: int) -> int:
    """Bytes of memory that a process may use: the machine's, or what a control group above it leaves."""
    with open("/proc/meminfo") as stream:
        found = int(next(line for line in stream if line.startswith("MemTotal:")).split()[1]) << 10
    try:
        with open(f"/proc/{pid}/cgroup") as stream:
            lines = [line.rstrip("\n").split(":", 2) for line in stream]
    except _GONE:
        return found
    for _, controllers, path in lines:
        if controllers == "":
            found = min(found, *_limits("/sys/fs/cgroup", path, "memory.max"))
        elif "memory" in controllers.split(","):
            found = min(found, *_limits("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes"))
    return found


def _limits(root: str, path: str, name: str) -> list[int]:
    """Those of a control group and all above it; twice as much as any machine has where there is none."""
    found = [1 << 62]
    while True:
        with suppress(OSError):  # not mounted here, or not in this cgroup namespace
            with open(f"{root}{path}/{name}") as stream:
                text = stream.read().strip()
            if text.isdecimal():  # not "max"
                found.append(int(text))
        if path in ("", "/"):
            return [*found, 1 << 62]
        path = path.rpartition("/")[0]


def _memory(pid: int) -> int | None:
    """Bytes; what several processes share counts for each in part: proc_pid_smaps_rollup."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as stream:
            return next((int(line.split()[1]) << 10 for line in stream if line.startswith("Pss:")), 0)
    except _GONE:  # it has ended, also as a zombie
        return 0
    except PermissionError:
        return None


def _io(pid: int) -> tuple[int | None, int | None]:
    """Bytes read from and written to disks: proc_pid_io(5)."""
    try:
        with open(f"/proc/{pid}/io") as stream:
            fields = dict(line.split(": ") for line in stream)
    except _GONE:
        return 0, 0
    except PermissionError:
        return None, None
    return int(fields["read_bytes"]), int(fields["write_bytes"])


def _total(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
