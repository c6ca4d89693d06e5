"""Keeping idle CPUs awake while requests are dense, in virtual machines and for root.

A client sleeps while its request is answered. In a virtual machine its CPU then halts, which is an exit to the
hypervisor, and so is the interrupt that wakes it: together they cost more than the answer. A latency of 0 at
/dev/cpu_dma_latency (Documentation/power/pm_qos_interface.rst) lets idle CPUs poll instead, for as long as the
descriptor is open; the kernel takes it back when the server ends, however it ends. It is asked for only where all of
this holds: halting is known to be dear (the kernel drives idle CPUs with cpuidle-haltpoll, made for such guests), few
CPUs can be kept awake for nothing, and this user may open the device. Elsewhere nothing is done.
"""

from __future__ import annotations

import math
import os
import struct
import time
from typing import Final

DEVICE: Final = "/dev/cpu_dma_latency"
_DRIVER: Final = "/sys/devices/system/cpu/cpuidle/current_driver"
_FEW_CPUS: Final = 4
"""Every idle CPU polls meanwhile: what four may take from the host's other guests is bounded, sixty-four is not."""
_NONE: Final = struct.pack("=i", 0)  # microseconds

LINGER_MS: Final = 2
"""How long without a request idle CPUs are still kept awake."""


_MANY: Final = 64
_DENSE_SECONDS: Final = 0.01
"""Many requests in so short a time: more than one command's looks. By the rate, as a client may work between them: git
compresses each file that it adds (docs/performance.md)."""


class CpuLatency:
    """Whether idle CPUs shall stay awake."""

    def __init__(self) -> None:
        self.kept = False
        self._fd = -1
        self._refused = not _pays()
        self._came = 0
        self._since = -math.inf  # time.monotonic() when as many had come before

    def came(self) -> None:
        """A request came while it was asked for, i.e. client and server have a CPU each."""
        if self.kept or self._refused:
            return
        self._came += 1
        if self._came == _MANY:
            now = time.monotonic()
            if now - self._since < _DENSE_SECONDS:
                self._keep()
            self._came, self._since = 0, now

    def _keep(self) -> None:
        try:
            self._fd = os.open(DEVICE, os.O_WRONLY | os.O_CLOEXEC)
            os.write(self._fd, _NONE)
        except OSError:  # not root, or no such device here; whatever it is, without it all works, only slower
            self._refused = True
            self.release()
            return
        self.kept = True

    def release(self) -> None:
        """Let them halt again; may be called again and again."""
        self.kept = False
        self._came, self._since = 0, -math.inf
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _pays() -> bool:
    try:
        with open(_DRIVER, encoding="ascii") as file:
            driver = file.read().strip()
    except OSError:  # no cpuidle, or a sysfs that is not there or not to be read: nothing says that it pays
        return False
    return driver == "haltpoll" and 1 < (os.cpu_count() or 1) <= _FEW_CPUS
