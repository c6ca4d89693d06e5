"""Programs that ask much of a file system do on every mount what they do on a plain directory."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

_WRITER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
for number in range(20):
    database.execute("BEGIN IMMEDIATE")
    database.execute("INSERT INTO item VALUES (?, ?)", (sys.argv[2], b"x" * 3000))
    database.execute("COMMIT")
"""
_GIT = """
    git init -q . && git add -A && git commit -qm one
    for n in 1 2 3; do echo $n >$n; git add -A; git commit -qm $n; done
    git worktree add -q ../worktree HEAD~1 && git mv 1 one && git commit -qm renamed
    git gc -q --prune=now && git fsck --strict && git clone -q . ../clone
    git status --short && git -C ../worktree status --short && git -C ../clone status --short
"""


def run(*command: str | Path, cwd: Path) -> str:
    settings = {"user.name": "a", "user.email": "a@b", "maintenance.auto": "false", "safe.directory": "*"}
    environment = {**os.environ, "GIT_CONFIG_COUNT": str(len(settings))}
    for number, (key, value) in enumerate(settings.items()):
        environment |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_rsync_finds_nothing_left_to_copy(root: Path) -> None:
    (root / "hole").write_bytes(b"")
    os.truncate(root / "hole", 1 << 20)
    os.link(root / "hole", root / "second")
    names = sorted(path.name for path in root.iterdir())
    run("rsync", "-aHAXS", *names, "copy/", cwd=root)
    again = run("rsync", "-aHAXSnic", *names, "copy/", cwd=root)
    assert again == ""
    assert (root / "copy/hole").stat().st_ino == (root / "copy/second").stat().st_ino


def test_sqlite_with_several_writers_and_a_write_ahead_log(root: Path) -> None:
    database = sqlite3.connect(root / "database")
    assert database.execute("PRAGMA journal_mode=WAL").fetchone() == ("wal",)
    database.execute("CREATE TABLE item (writer TEXT, data BLOB)")
    database.commit()
    writers = [
        subprocess.Popen([sys.executable, "-IS", "-c", _WRITER, root / "database", str(number)]) for number in range(3)
    ]
    assert [writer.wait(100) for writer in writers] == [0, 0, 0]
    assert database.execute("SELECT count(*) FROM item").fetchone() == (60,)
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()
    assert not (root / "database-wal").exists()


def test_git_is_content_with_its_repository(root: Path) -> None:
    (root / "repository").mkdir()
    run("sh", "-c", "cp -a /usr/share/perl5/. repository/ 2>/dev/null || cp -a /etc/default repository/", cwd=root)
    assert run("sh", "-ec", _GIT, cwd=root / "repository") == ""
