"""Keeping idle CPUs awake while requests come one after the other, in virtual machines and for root.

A client sleeps while its request is answered. In a virtual machine its CPU then halts, which is an exit to the
hypervisor, and so is the interrupt that wakes it: together they cost more than the answer. A latency of 0 at
/dev/cpu_dma_latency (Documentation/power/pm_qos_interface.rst) lets idle CPUs poll instead, for as long as the
descriptor is open; the kernel takes it back when the server ends, however it ends. It is asked for only where all of
this holds: halting is known to be dear (the kernel drives idle CPUs with cpuidle-haltpoll, made for such guests), few
CPUs can be kept awake for nothing, and this user may open the device. Elsewhere nothing is done.
"""

from __future__ import annotations

import os
import struct
from typing import Final

DEVICE: Final = "/dev/cpu_dma_latency"
_DRIVER: Final = "/sys/devices/system/cpu/cpuidle/current_driver"
_FEW_CPUS: Final = 4
"""Every idle CPU polls meanwhile: what four may take from the host's other guests is bounded, sixty-four is not."""
_NONE: Final = struct.pack("=i", 0)  # microseconds

LINGER_MS: Final = 2
"""How long without a request idle CPUs are still kept awake."""


class CpuLatency:
    """Whether idle CPUs shall stay awake. `keep` and `release` may be called again and again."""

    def __init__(self) -> None:
        self.kept = False
        self._fd = -1
        self._refused = not _pays()

    def keep(self) -> None:
        """Let idle CPUs poll, where that pays and is allowed."""
        if self.kept or self._refused:
            return
        try:
            self._fd = os.open(DEVICE, os.O_WRONLY | os.O_CLOEXEC)
            os.write(self._fd, _NONE)
        except OSError:  # not root, or no such device here; whatever it is, without it all works, only slower
            self._refused = True
            self.release()
            return
        self.kept = True

    def release(self) -> None:
        """Let them halt again."""
        self.kept = False
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
