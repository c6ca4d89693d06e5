"""Random sequences of file operations on a mount and on a plain directory: same results, errno and final tree.

Every step is done on both sides; everything is compared after each step, or now and then, and at the end after a
remount. The bounded profile is what CI runs; set UFS_STATEFUL_EXAMPLES (and UFS_STATEFUL_STEPS) for longer runs with
fresh random sequences.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.support.content import LOWERS, Lower
from tests.union.stateful.attributes import Attributes
from tests.union.stateful.data import Data
from tests.union.stateful.names import Names, NamesBelow
from unionfs.serve import ENGINES

EXAMPLES = int(os.environ.get("UFS_STATEFUL_EXAMPLES", "0"))
STEPS = int(os.environ.get("UFS_STATEFUL_STEPS", "60"))


class Comparison(Names, NamesBelow, Attributes, Data):
    """All steps."""


def run(base: Path, lower: str, engine: str, examples: int, *, pressed: bool = False, overrides: bool = False) -> None:
    """So many examples, fewer than UFS_STATEFUL_EXAMPLES says."""
    attributes = {
        "lower": Lower(base / "lower", lower),
        "engine": engine,
        "base": base,
        "pressed": pressed,
        "overrides": overrides,
    }
    run_state_machine_as_test(type("Machine", (Comparison,), attributes), settings=_settings(EXAMPLES or examples))


@pytest.mark.only_root  # makes the kernel forget by remounting
@pytest.mark.parametrize("lower", LOWERS)
def test_they_do_the_same_while_caches_are_dropped(tmp_path: Path, lower: str) -> None:
    run(tmp_path, lower, "direct", 8, pressed=True)


@pytest.mark.only_root  # shows owners of all kinds
@pytest.mark.parametrize("lower", LOWERS)
def test_they_do_the_same_with_owners_in_xattrs(tmp_path: Path, lower: str) -> None:
    run(tmp_path, lower, "direct", 10, overrides=True)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("lower", LOWERS)
def test_mount_and_plain_directory_do_the_same(tmp_path: Path, lower: str, engine: str) -> None:
    run(tmp_path, lower, engine, 25 if engine == "direct" else 8)


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=STEPS if EXAMPLES else 60,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
