"""i386 programs without large file support: whatever has a number of more than 32 bits is EOVERFLOW for them."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.mounted import Mounted
from tests.support.systems import SYSTEMS, System, system
from unionfs.live.directories import DirectoryStack
from unionfs.serve import ENGINES

__all__ = ["system"]

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86_64 runs i386 programs")

MANY = 700

Look = Callable[[Path], None]


@pytest.fixture(scope="module")
def look(tmp_path_factory: pytest.TempPathFactory) -> Look:
    """Lets an i386 program stat, open and list everything below a directory, and compares what it says."""
    program = tmp_path_factory.mktemp("i386") / "old32"
    source = Path(__file__).parents[1] / "support/old32.c"
    options = ["-m32", "-nostdlib", "-static", "-O1", "-fno-pic", "-no-pie", "-fno-stack-protector"]
    subprocess.run(["gcc", *options, "-o", program, source], check=True)

    def run(root: Path) -> None:
        found, listed = [os.fspath(root)], []
        for path, directories, files in os.walk(root):
            found += [os.path.join(path, name) for name in directories + files]
            listed.append(f"{path} {len(directories) + len(files)}")
        said = subprocess.run([program, *found], stdout=subprocess.PIPE, text=True, check=False, timeout=60).stdout
        assert sorted(said.splitlines()) == sorted(listed)

    return run


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A directory on another device than the rest."""
    path = Path(tempfile.mkdtemp(prefix="ufs-test-", dir="/dev/shm"))
    yield path
    shutil.rmtree(path)


def change(root: Path) -> None:
    """Copy up, make, move, and fill directories."""
    for name in ("d/f", "d/g", "d/e", "a", "d/e/x"):
        (root / name).chmod(0o700)
    (root / "d/e").rename(root / "m/moved")
    (root / "new").mkdir()
    for directory in ("new", "m"):
        for number in range(MANY):
            (root / directory / f"{number}").touch()


@pytest.mark.parametrize("system", [name for name in SYSTEMS if name != "plain"], indirect=True)
def test_stat_open_and_readdir_work(system: System, look: Look) -> None:
    look(system.root)
    change(system.root)
    look(system.root)
    system.remount()
    look(system.root)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("upper_is_elsewhere", [True, False])
def test_layers_of_several_devices(
    tmp_path: Path, elsewhere: Path, look: Look, engine: str, upper_is_elsewhere: bool
) -> None:
    low, far = tmp_path / "low", elsewhere / "far"
    for layer in (low, far):
        (layer / "d/e").mkdir(parents=True)
        for number in range(MANY):
            (layer / f"d/{layer.name}{number}").touch()
    layers = [low] if upper_is_elsewhere else [low, far]
    base = elsewhere if upper_is_elsewhere else tmp_path
    mounted = Mounted(base, lambda: DirectoryStack([os.fsencode(layer) for layer in layers]), engine)
    mounted.mount()
    try:
        look(mounted.target)
        (mounted.target / "d/new").mkdir()
        for number in range(3):
            (mounted.target / f"d/low{number}").chmod(0o600)
            (mounted.target / f"d/new/{number}").touch()
        look(mounted.target)
    finally:
        mounted.unmount()
