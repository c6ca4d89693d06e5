"""The suite's own tools: a leak check that cannot fail would be none."""

from __future__ import annotations

import logging
import os
import subprocess
from pathlib import Path

import pytest

from tests.support import processes, snapshot
from tests.support.logs import Collector
from tests.support.users import PLAIN, RANGE_FILES, ROOT, SUBUID, User
from tests.support.waiting import settles


def test_each_kind_of_user_is_who_it_says(user: User) -> None:
    """The account, its ranges and its environment are what the kind promises."""
    assert user.run(["id", "-u"], check=True).stdout == f"{user.uid}\n"
    assert (user.uid == 0) == (user.kind == ROOT)
    if user.kind != ROOT:
        for path in RANGE_FILES:
            assert any(line.startswith(f"{user.name}:") for line in path.read_text().splitlines()) == (
                user.kind == SUBUID
            )
    assert user.run(["sh", "-c", "echo $HOME; touch $TMPDIR/x && pwd"], check=True).stdout == f"{user.home}\n" * 2


def test_environment_does_not_leak(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UFS_LEAKED", "1")
    assert "UFS_LEAKED" not in user.run(["env"], check=True).stdout


def test_installed_commands_are_found_and_run(user: User) -> None:
    """Also where the checkout is closed to the user."""
    assert user.command(["ufs", "x"])[0] == str(user.bin / "ufs")
    code = "import unionfs, launcher, click, trio, pyfuse3, zstandard; print(unionfs.__file__)"
    found = user.run([user.bin / "python", "-c", code], check=True).stdout
    assert Path(found).is_relative_to(user.bin.parent)


def test_orphans_are_found_and_killed() -> None:
    before = processes.descendants()
    subprocess.run(["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &"], check=True)
    assert settles(lambda: processes.descendants() - before)
    left = processes.left_over(before, seconds=0)
    assert len(left) == 1
    assert "sleep 1000" in left[0]
    assert settles(lambda: not processes.descendants() - before)


def test_log_lines_are_collected_and_matched() -> None:
    with Collector("only.this") as collector:
        logging.getLogger("only.this.part").warning("one %s", "surprise")
    assert collector.complaints([]) == ["unexpected: WARNING only.this.part: one surprise"]
    assert collector.complaints(["one sur"]) == []
    assert collector.complaints(["one", "two"]) == ["not logged: two"]


@pytest.mark.expect_log("WARNING launcher: named")
def test_a_marker_names_the_expected_line() -> None:
    logging.getLogger("launcher").warning("named in the marker")


def test_snapshot_sees_every_difference(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "dir").mkdir(parents=True)
        (tmp_path / name / "dir/file").write_text(name)
        (tmp_path / name / "link").symlink_to(name)
        os.utime(tmp_path / name / "dir/file", (1, 1))
    os.link(tmp_path / "a/dir/file", tmp_path / "a/second")
    text = snapshot.differences(snapshot.snapshot(str(tmp_path / "a")), snapshot.snapshot(str(tmp_path / "b")))
    for part in ("only in ours: 'second'", "'dir/file': content", "'dir/file': links", "'link': target"):
        assert part in text
    assert "'dir/file': mtime" not in text


def test_names_of_kinds_are_distinct() -> None:
    assert len({ROOT, SUBUID, PLAIN}) == 3
