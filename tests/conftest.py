"""What every test gets: leak checks and unexpected log lines as failures, the kinds of user, real images.

- `user` (parametrised) is each kind of user that this process may act as; `root_user` is root alone.
- `images` builds images with other people's tools; see `tests.images`.
- `installed` is a copy of our commands that every user may run.
- In CI (the environment variable CI is set) a skipped test is a failed one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.images import Images
from tests.support import mounts, processes
from tests.support.area import Area
from tests.support.installed import Installed
from tests.support.logs import Collector
from tests.support.users import ROOT, User, is_real_root, kinds

LEAK_SECONDS = 10.0


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "expect_log(pattern, ...): regular expressions of the log lines from WARNING on that must come"
    )
    config.addinivalue_line("markers", "only_root: acts as several users or makes devices, and so needs root")
    config.addinivalue_line("markers", "real_root: needs a privilege that root of a user namespace lacks")
    processes.adopt_orphans()


def pytest_sessionstart() -> None:
    """Without the device nothing can be shown, so say so once instead of in every test."""
    try:
        mode = os.stat("/dev/fuse").st_mode
    except FileNotFoundError:
        pytest.exit("no /dev/fuse: load the kernel's fuse module (modprobe fuse)", returncode=3)
    if os.geteuid() != 0 and not mode & stat.S_IWOTH and not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.exit("no permission on /dev/fuse: as root run chmod 0666 /dev/fuse", returncode=3)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Kinds that this process cannot act as are not collected: they do not apply, so nothing is skipped."""
    if "user_kind" in metafunc.fixturenames:
        metafunc.parametrize("user_kind", kinds(), scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    lacking = {"only_root"} if os.geteuid() else set()
    lacking |= set() if is_real_root() else {"real_root"}
    if lacking:
        inapplicable = [item for item in items if any(map(item.get_closest_marker, lacking))]
        config.hook.pytest_deselected(items=inapplicable)
        items[:] = [item for item in items if item not in inapplicable]


def pytest_report_header() -> str:
    return f"kinds of user: {', '.join(kinds())}" + ("; skips count as failures" if _strict() else "")


def _strict() -> bool:
    return bool(os.environ.get("CI"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and _strict():
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped and _strict():
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def area(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Area]:
    """The session's directory below /tmp. Its end checks what fixtures of a wider scope left."""
    area = Area()
    below = [area.path, tmp_path_factory.getbasetemp()]
    before = processes.descendants()
    yield area
    left = mounts.left_over(set(), below, LEAK_SECONDS) + processes.left_over(before, LEAK_SECONDS)
    area.close()
    assert not left, f"the session left: {left}"


@pytest.fixture(scope="session")
def installed(area: Area) -> Installed:
    return area.installed


@pytest.fixture(scope="session")
def images(area: Area) -> Images:
    return Images(area)


@pytest.fixture(autouse=True)
def no_leaks(area: Area, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[User]]:
    """No test leaves a FUSE mount, a process or a descriptor. Yields the users whose homes go afterwards."""
    users: list[User] = []
    below = [area.path, tmp_path_factory.getbasetemp()]
    mounts_before = mounts.fuse_mounts(below)
    processes_before = processes.descendants()
    descriptors_before = processes.descriptors()
    yield users
    left = [f"mount {path}" for path in mounts.left_over(mounts_before, below, LEAK_SECONDS)]
    left += [f"process {line}" for line in processes.left_over(processes_before, LEAK_SECONDS)]
    left += [f"descriptor {line}" for line in processes.descriptors_left(descriptors_before)]
    left += [f"file {path}" for user in users for path in half_written(user.store)]
    for user in users:
        area.forget(user)
    assert not left, "the test left: " + "; ".join(left)


def half_written(store: Path) -> list[Path]:
    """Temporaries of a store and of the work directories in it: nothing of the kind outlives a command."""
    return [*store.glob("containers/*/work/work/*"), *store.glob("**/.tmp-*"), *store.glob("tmp/*")]


@pytest.fixture(autouse=True)
def no_surprising_logs(request: pytest.FixtureRequest) -> Iterator[Collector]:
    """A log line from WARNING on fails the test, unless its marker `expect_log` names it."""
    marks = request.node.iter_markers("expect_log")
    expected = [pattern for mark in marks for pattern in mark.args]
    with Collector() as collector:
        yield collector
    complaints = collector.complaints(expected)
    assert not complaints, "\n".join(complaints)


@pytest.fixture
def user(user_kind: str, area: Area, no_leaks: list[User]) -> User:
    """Each kind of user in turn, with a fresh home and so an empty store."""
    made = area.new_user(user_kind)
    no_leaks.append(made)
    return made


@pytest.fixture
def root_user(area: Area, no_leaks: list[User]) -> User:
    """Root, for tests marked `only_root`."""
    made = area.new_user(ROOT)
    no_leaks.append(made)
    return made
