"""This suite without root: by an ordinary user through fusermount3, and by one who is root of a user namespace."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.support.area import Area
from tests.support.installed import CHECKOUT
from tests.support.users import PLAIN, SUBUID, User

pytestmark = pytest.mark.real_root  # acts as other users, and keeps this from running itself

NEEDED = ("unionfs", "launcher", "tests", "pyproject.toml")
NOT_NEEDED = shutil.ignore_patterns("mypy*", "ruff*", "pip*", "__editable__*", "__pycache__")
WAYS = {PLAIN: [], SUBUID: ["unshare", "--user", "--map-root-user", "--map-auto", "--mount", "--propagation", "slave"]}
"""Slave, so that what is unmounted outside goes inside, too: a copy would keep its server."""


@pytest.fixture(params=WAYS)
def user(request: pytest.FixtureRequest, area: Area, no_leaks: list[User]) -> User:
    made = area.new_user(request.param)
    no_leaks.append(made)
    return made


@pytest.fixture
def checkout(user: User) -> Path:
    """A copy that the user may read, wherever the checkout is."""
    base = user.temp / "checkout"
    base.mkdir()
    for name in NEEDED:
        source = CHECKOUT / name
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, base / name)
    shutil.copytree(sysconfig.get_path("purelib"), base / "dependencies", ignore=NOT_NEEDED)
    return user.own(base)


def test_the_suite_passes_without_root(user: User, checkout: Path) -> None:
    python = getattr(sys, "_base_executable", sys.executable)
    which = ["-k", "(plain or direct) and not pyfuse3"]
    options = ["-q", *which, "-p", "no:cacheprovider", "--basetemp", str(user.temp / "pytest")]
    done = user.run(
        [*WAYS[user.kind], python, "-m", "pytest", *options, "tests/conformance"],
        cwd=checkout,
        env={"PYTHONPATH": f"{checkout}:{checkout / 'dependencies'}", "CI": os.environ.get("CI", "")},
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert " passed" in done.stdout
