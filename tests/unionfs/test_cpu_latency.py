"""The server asks for low latency while requests are dense, where that pays, and for no longer."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.support.content import Lower
from tests.support.mounted import Mounted
from tests.support.waiting import settles, wait_until
from unionfs.fuse.latency import DEVICE


def _dear_and_allowed() -> bool:
    """Asked of the machine in another way than the product does."""
    driver = Path("/sys/devices/system/cpu/cpuidle/current_driver")
    guest = driver.exists() and driver.read_text() == "haltpoll\n"
    return guest and 2 <= os.sysconf("SC_NPROCESSORS_ONLN") <= 4 and os.access(DEVICE, os.W_OK)


def _asks(server: int) -> bool:
    for fd in Path(f"/proc/{server}/fd").iterdir():
        try:
            if os.readlink(fd) == DEVICE:
                return True
        except FileNotFoundError:  # closed since it was listed
            continue
    return False


def _work() -> None:
    """A client that does something with what it got, longer than the server goes on asking before it sleeps."""
    end = time.monotonic() + 200e-6
    while time.monotonic() < end:
        pass


@pytest.mark.only_root
def test_idle_cpus_are_kept_awake_only_while_requests_are_dense(tmp_path: Path) -> None:
    mounted = Mounted(tmp_path, Lower(tmp_path / "lower", "directories").open, "direct")
    mounted.mount()
    try:
        server = mounted.server

        def asks_when_busy() -> bool:
            for number in range(500):
                os.statvfs(mounted.target)  # never cached: a request each
                if number % 8 == 7:
                    _work()
            return _asks(server)

        assert settles(asks_when_busy, 20 if _dear_and_allowed() else 0.5) == _dear_and_allowed()
        wait_until(lambda: not _asks(server), "an idle server to let idle CPUs halt")
    finally:
        mounted.unmount()
