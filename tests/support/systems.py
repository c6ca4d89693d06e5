"""The content of `tests.support.content` as every system that behaviour is shown on: a plain directory, so that a case
itself is known to be right, and a mount of each kind of tree by each engine.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.content import LOWERS, Lower, build_plain
from tests.support.mounted import Mounted
from unionfs.serve import ENGINES

SYSTEMS = ["plain", *(f"{lower}-{engine}" for lower in LOWERS for engine in ENGINES)]

OVERRIDDEN = [f"{name}-overrides" for name in SYSTEMS if name.endswith("-direct")]
"""The same with owners and modes in ``user.containers.override_stat``."""


class System:
    """A directory with the content in it, and whether it is a mount that can be mounted anew."""

    def __init__(self, name: str, root: Path, mounted: Mounted | None) -> None:
        self.engine = "" if mounted is None else name.split("-")[1]
        self.root = root
        self.mounted = mounted

    def remount(self) -> None:
        if self.mounted is not None:
            self.mounted.unmount()
            self.mounted.mount()


@pytest.fixture(params=SYSTEMS)
def system(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[System]:
    name = request.param
    if name == "plain":
        build_plain(tmp_path / "plain")
        yield System(name, tmp_path / "plain", None)
        return
    lower, engine, *overrides = name.split("-")
    mounted = Mounted(tmp_path, Lower(tmp_path / "lower", lower).open, engine, overrides=bool(overrides))
    mounted.mount()
    try:
        yield System(name, mounted.target, mounted)
    finally:
        mounted.unmount()


@pytest.fixture
def root(system: System) -> Path:
    return system.root


@contextmanager
def raises(code: int) -> Iterator[None]:
    with pytest.raises(OSError) as caught:
        yield
    assert errno.errorcode[caught.value.errno or 0] == errno.errorcode[code]


@contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)
