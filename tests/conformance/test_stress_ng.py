"""stress-ng's stressors of file systems, which check what they did (``--verify``), end on every mount as on a plain
directory: with success, after a fixed number of operations.

Left out are those that take seconds even for one operation (link and symlink make 8,192 names; inotify; chdir; fpunch)
and those that go by time (dirmany). Their calls are in the other files here.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.systems import System

NAMES = {"dentry": 200, "dir": 200, "dirdeep": 100, "filename": 20, "getdent": 20, "mknod": 50, "open": 200}
NAMES |= {"rename": 200, "touch": 50}
ATTRIBUTES = {"access": 20, "chmod": 50, "chown": 50, "fstat": 200, "utime": 100, "xattr": 2}
DATA = {"copy-file": 20, "fcntl": 50, "fiemap": 20, "file-ioctl": 20, "hdd": 100, "mmap": 2, "msync": 50}
DATA |= {"readahead": 20, "revio": 50, "seek": 300, "sendfile": 50}
LOCKS = {"flock": 200, "lease": 50, "locka": 200, "lockf": 200, "lockofd": 200}
FALLOCATE = {"fallocate": 4, "iomix": 50, "sync-file": 2}
"""These count nothing where fallocate(2) is refused, and so would never end with pyfuse3."""

LIMITS = ["--hdd-bytes", "1m", "--iomix-bytes", "1m", "--mmap-bytes", "1m", "--mmap-file", "--msync-bytes", "1m"]
LIMITS += ["--revio-bytes", "1m", "--seek-size", "1m"]


def test_stressors_find_nothing_wrong(system: System) -> None:
    stressors = NAMES | ATTRIBUTES | DATA | LOCKS | ({} if system.engine == "pyfuse3" else FALLOCATE)
    said = {name: stress(system.root / "d", name, operations) for name, operations in stressors.items()}
    assert said == dict.fromkeys(stressors, "")
    assert not list((system.root / "d").glob("tmp-stress*"))


def stress(directory: Path, name: str, operations: int) -> str:
    """What a stressor found wrong, or that it did not get to its last operation; nothing where it passed."""
    # One that runs into its own limit of time counts as passed, so it gets none; timeout(1) ends all its processes.
    count = [f"--{name}", "1", f"--{name}-ops", str(operations), "--timeout", "0"]
    command = [
        "timeout",
        "60",
        "stress-ng",
        "--quiet",
        "--verify",
        "--no-rand-seed",
        "--temp-path",
        directory,
        *count,
        *LIMITS,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip() + (f" (status {done.returncode})" if done.returncode else "")
