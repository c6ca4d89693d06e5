"""The aims: how many times the seconds of another subject a workload may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Aim:
    """Ratios to the peer, free and on one CPU, and to the plain directory, where there is such an aim."""

    free: float
    one_cpu: float
    directory: float | None = None
    peer: str = "fuse-overlayfs"

    def of(self, placement: str) -> float:
        return self.one_cpu if placement == "one CPU" else self.free


AIMS = {
    "walk-cold": Aim(0.25, 0.5),
    "walk-hot": Aim(0.15, 0.6, 1.1),
    "read-cold": Aim(0.3, 0.7),
    "read-hot": Aim(0.15, 0.6, 1.15),
    "unpack": Aim(0.3, 0.7),
    "chmod-all": Aim(0.5, 0.8),
    "remove-new": Aim(0.5, 0.8),
    "remove-lower": Aim(0.5, 0.8),
    "write-big-cold": Aim(1.0, 1.0, 1.5),
    "write-big-hot": Aim(1.0, 1.0, 1.5),
    "read-big-cold": Aim(1.0, 1.0, 1.5),
    "read-big-hot": Aim(1.0, 1.0, 1.5),
    "copy-up-big": Aim(0.8, 0.8),
    "rename-dir": Aim(0.01, 0.01),
    "random-rw": Aim(0.7, 1.0),
    "sqlite": Aim(0.8, 1.0),
    "git": Aim(0.5, 0.8),
    "build": Aim(0.6, 1.0, 1.5),
    "parallel": Aim(0.5, 0.8),
    "launch": Aim(0.6, 0.6, peer="podman"),
    "load": Aim(0.6, 0.6, peer="podman"),
    "archive-start": Aim(0.3, 0.3, peer="podman"),
}
FLAT = 1.1
"""An image of many layers may take that many times the seconds of one with one layer."""
MOST_MB = 60.0
"""Memory of the server after walking 50,000 files."""
