"""A hard-linked file that was changed is in the upper by the name that it was changed by, and by all that are known."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.systems import SYSTEMS, System, opened, system

__all__ = ["system"]

MOUNTS = [name for name in SYSTEMS if name != "plain"]
NAMES = ("a", "b", "d/h")
CHANGES: dict[str, Callable[[Path], object]] = {
    "write": lambda path: path.write_text("changed"),
    "append": lambda path: _append(path),
    "truncate": lambda path: os.truncate(path, 3),
    "chmod": lambda path: path.chmod(0o751),
    "utime": lambda path: os.utime(path, (5, 5)),
    "setxattr": lambda path: os.setxattr(path, "user.new", b"x"),
    "removexattr": lambda path: os.removexattr(path, "user.two"),
    "link": lambda path: path.with_name("n").hardlink_to(path),
}


def _append(path: Path) -> None:
    with opened(path, os.O_WRONLY | os.O_APPEND) as fd:
        os.write(fd, b" and more")


def look(path: Path) -> tuple[object, ...]:
    info = path.stat()
    return info.st_mode, info.st_size, path.read_bytes(), os.listxattr(path)


@pytest.mark.parametrize("system", MOUNTS, indirect=True)
@pytest.mark.parametrize("name", NAMES)
def test_each_change_by_each_name(system: System, name: str) -> None:
    assert system.mounted is not None
    upper = system.mounted.upper
    os.listdir(system.root)  # all names are looked up, as by a shell or a walk; then used without another look-up
    for what, change in CHANGES.items():
        change(system.root / name)
        assert (upper / name).exists(), what

        for other in NAMES:
            assert (system.root / other).samefile(system.root / name), what
            assert look(system.root / other) == look(system.root / name), what
        if what == "append":
            system.remount()
    ours = {key for key in os.listxattr(upper / name) if not key.startswith("user.ufs.")}
    assert ours == set(os.listxattr(system.root / name)) == {"user.new"}
    assert (system.root / name).stat().st_nlink == 4
    assert {(upper / other).stat().st_ino for other in NAMES} == {(upper / name).stat().st_ino}


@pytest.mark.parametrize("system", MOUNTS, indirect=True)
def test_what_is_not_changed_is_not_there(system: System) -> None:
    """Removing or moving one name is no change of the others."""
    assert system.mounted is not None
    (system.root / "b").unlink()
    (system.root / "d/h").rename(system.root / "n")
    if system.engine == "direct":  # with pyfuse3 the kernel sets times by itself, which is a change
        assert not (system.mounted.upper / "a").exists()
    for _ in range(2):
        assert (system.root / "a").samefile(system.root / "n")
        assert (system.root / "a").stat().st_nlink == 2
        system.remount()
    (system.root / "n").write_text("changed")
    assert (system.root / "a").read_text() == "changed"
    (system.root / "a").write_text("by the other")
    assert (system.mounted.upper / "a").read_text() == "by the other"
    assert (system.mounted.upper / "n").read_text() == "by the other"


@pytest.mark.parametrize("system", ["directories-direct", "directories-pyfuse3"], indirect=True)
def test_a_name_looked_up_after_the_change(system: System) -> None:
    """Live directories do not know the names that nobody asked for; the first change by one brings it along."""
    assert system.mounted is not None
    (system.root / "b").chmod(0o600)
    assert not (system.mounted.upper / "d").exists()
    (system.root / "d/h").write_text("changed")
    assert (system.mounted.upper / "d/h").samefile(system.mounted.upper / "b")
    system.remount()
    (system.root / "a").write_text("again")
    assert (system.mounted.upper / "a").read_text() == "again"
