"""This suite without root: by an ordinary user through fusermount3, and by one who is root of a user namespace.

Run again is what can depend on the rights of the caller or of the server, on which ids it may store, or on how it was
mounted (`FAMILIES`): errnos, leases (of the owner alone), names and whiteouts (devices), flags of open(2) (files that
their maker may not open), owners, permissions, limits of sizes (CAP_SYS_RESOURCE), times (the owner's), xattrs (whose
name spaces are root's), and whole programs. Run as root alone is what happens in a file that is open already
(`AS_ROOT_ALONE`): moving and reserving bytes, mappings, random data, locks of the three kinds, events, positions in
listings; and stress-ng, whose calls the families make as well. The kernel and the union ask there neither who calls
nor who serves; what writing takes away (set-id bits) is shown with the owners. rsync, sqlite with its locks and its
mapped journal, and git use all of it for everybody. Only the direct front end is run again, since who serves is the
same for both.
"""

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

FAMILIES = ("errnos", "leases", "names", "open_flags", "owners", "permissions", "programs", "sizes", "times", "xattr")
AS_ROOT_ALONE = (
    *("data_calls", "flock", "lock_ranges", "locks", "mappings", "ofd_locks", "random_data", "readdir", "watching"),
    *("rootless", "stress_ng"),
)

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


def test_every_family_is_run_again_or_named() -> None:
    here = {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}
    assert sorted(here) == sorted([*FAMILIES, *AS_ROOT_ALONE])


def test_the_suite_passes_without_root(user: User, checkout: Path) -> None:
    python = getattr(sys, "_base_executable", sys.executable)
    which = ["-k", "(plain or direct) and not pyfuse3"]
    options = ["-q", *which, "-p", "no:cacheprovider", "--basetemp", str(user.temp / "pytest")]
    families = [f"tests/conformance/test_{family}.py" for family in FAMILIES]
    done = user.run(
        [*WAYS[user.kind], python, "-m", "pytest", *options, *families],
        cwd=checkout,
        env={"PYTHONPATH": f"{checkout}:{checkout / 'dependencies'}", "CI": os.environ.get("CI", "")},
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert " passed" in done.stdout
