"""A copy of the project that every user of the machine may run, wherever the checkout is.

It is laid out as a checkout that is set up, so that script/demo works in it as well.
"""

from __future__ import annotations

import compileall
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = ("unionfs", "launcher")
COMMANDS = ("ufs", "ufs-run", "ufs-mount")
NOT_NEEDED = ("mypy*", "ruff*", "pip*", "*pytest*", "hypothesis*", "setuptools*", "pygments*", "__editable__*")


@dataclass(frozen=True)
class Installed:
    """Absolute paths below a world-readable directory."""

    base: Path
    bin: Path
    python: Path

    def command(self, name: str) -> Path:
        """The path of `ufs`, `ufs-run` or `ufs-mount`."""
        return self.bin / name


def install(base: Path) -> Installed:
    """Make the copy below `base`, which exists and which everybody may enter."""
    environment = base / ".venv"
    subprocess.run([_base_python(), "-m", "venv", "--without-pip", environment], check=True, stdin=subprocess.DEVNULL)
    python = environment / "bin" / "python"
    site = next(environment.glob("lib/python3*/site-packages"))
    for package in PACKAGES:
        shutil.copytree(CHECKOUT / package, site / package, ignore=shutil.ignore_patterns("__pycache__"))
    compileall.compile_dir(str(site), quiet=1)
    dependencies = Path(sysconfig.get_path("purelib"))
    if not _everybody_may_read(dependencies):
        dependencies = base / "dependencies"
        shutil.copytree(sysconfig.get_path("purelib"), dependencies, ignore=shutil.ignore_patterns(*NOT_NEEDED))
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    for name in COMMANDS:  # as script/setup does it
        script = environment / "bin" / name
        _, _, text = (CHECKOUT / "bin" / name).read_text().partition("\n")
        script.write_text(f"#!/usr/bin/env -S --block-signal=INT {python} -ISXutf8\n{text}")
        script.chmod(0o755)
    for folder in ("script", "bin"):
        shutil.copytree(CHECKOUT / folder, base / folder, symlinks=True)
    shutil.copyfile(CHECKOUT / "pyproject.toml", base / "pyproject.toml")
    checksum = hashlib.sha256((base / "pyproject.toml").read_bytes() + (base / "bin/ufs").read_bytes()).hexdigest()
    (environment / "stamp-demo").write_text(f"{checksum} {base}\n")
    subprocess.run(["chmod", "-R", "a+rX", base], check=True)
    return Installed(base, environment / "bin", python)


def _base_python() -> str:
    return getattr(sys, "_base_executable", sys.executable)


def _everybody_may_read(path: Path) -> bool:
    needed = stat.S_IROTH | stat.S_IXOTH
    below = os.stat(path).st_mode & needed == needed
    return below and all(os.stat(parent).st_mode & stat.S_IXOTH for parent in path.parents)
