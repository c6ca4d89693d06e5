"""The server is killed at every system call of every kind of change: the next mount shows the old or the new."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.operations import FORMS, OPERATIONS, Place, State, opened, state
from tests.support import tracing
from tests.support.content import LOWERS, Lower
from tests.support.foreign import foreign

pytestmark = pytest.mark.only_root  # sets owners


@pytest.fixture(params=LOWERS)
def lower(request: pytest.FixtureRequest, tmp_path: Path) -> Lower:
    return Lower(tmp_path / "lower", request.param)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_killed_at_every_call(
    tmp_path: Path, lower: Lower, name: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if form == "files":
        monkeypatch.setenv("FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT", "1")
    _kill_at_every_call(lower, tmp_path / "base", name, form)


_MORE_STEPS = (
    "rename directory over emptied", "rename new directory over whiteout", "mkdir over whiteout", "rmdir emptied",
    "unlink promoted",
)  # fmt: skip


@pytest.mark.parametrize("name", _MORE_STEPS)
def test_killed_where_the_upper_needs_more_steps(tmp_path: Path, name: str) -> None:
    """bindfs has neither RENAME_EXCHANGE nor RENAME_WHITEOUT nor RENAME_NOREPLACE."""
    with foreign("bindfs", tmp_path / "foreign") as disk:
        _kill_at_every_call(Lower(tmp_path / "lower", "image"), disk / "base", name, "bindfs")


def _kill_at_every_call(lower: Lower, base: Path, name: str, form: str) -> None:
    before, change = OPERATIONS[name]

    def stopped(point: int) -> tuple[str, int, State]:
        for part in ("upper", "work"):
            (base / part).mkdir(parents=True)

        def prepare() -> Callable[[], object]:
            place = Place(opened(lower, base, form))
            before(place)
            return lambda: change(place)

        try:
            return *tracing.run(prepare, point), state(lower, base, form)
        finally:
            shutil.rmtree(base)

    how, code, new = stopped(1 << 30)
    assert (how, code) == (tracing.ENDED, -1)
    old = stopped(0)[2]
    for point in itertools.count(1):
        how, call, found = stopped(point)
        if how == tracing.ENDED:
            assert point > 1
            return
        assert found in (old, new), f"killed at call {point} ({call}): {_difference(found, old, new)}"


def _difference(found: State, old: State, new: State) -> list[object]:
    names = sorted(found.keys() | old.keys() | new.keys())
    return [
        (name, "is", found.get(name), "was", old.get(name), "shall be", new.get(name))
        for name in names
        if not found.get(name) == old.get(name) == new.get(name)
    ]
