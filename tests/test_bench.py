"""script/bench with the smallest content: every workload does its work, and the JSON says what it should."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.suite import content, workloads
from bench.suite.sizes import TINY
from tests.support.installed import CHECKOUT
from tests.support.mounts import fuse_mounts
from tests.support.waiting import wait_until

KEYS = {"workload", "placement", "subject", "seconds", "runs", "requests", "cpu", "peak"}
SIMPLE = ["files", "small", "renamed", "big", "sqlite", "layers-1", "layers-32"]


def bench(*words: str | Path) -> str:
    """What it prints; nothing may have been left out, and nothing stays behind."""
    command: Sequence[str | Path] = [sys.executable, "-m", "bench.suite", "--sizes", "tiny", *words]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert "left out" not in done.stderr, done.stderr
    assert "no time is left" not in done.stderr, done.stderr
    assert "bench: in " not in done.stderr or not Path(done.stderr.split("bench: in ")[1].split(",")[0]).exists()
    return done.stdout


def test_every_simple_workload_on_a_directory_and_on_ours(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    words = ("--json", figures, "--placement", "one", "--subject", "directory", "ufs", "ufs-image")
    printed = bench(*words, "--", *SIMPLE)
    rows = json.loads(figures.read_text())
    assert all(set(row) == KEYS for row in rows)
    found = {(row["workload"], row["subject"]): row for row in rows}
    assert len(found) == len(rows)
    steps = [step.name for group, report in workloads.chosen(SIMPLE) for step in group.steps if step.name in report]
    assert {workload for workload, _ in found} == set(steps)
    for step in steps:
        assert f"| {step} | " in printed
        assert found[step, "directory"]["cpu"] is None
        assert found[step, "ufs"]["peak"] > 1
        assert found[step, "ufs"]["runs"] == 1
        assert found[step, "ufs"]["seconds"] > 0
    assert ("walk-cold", "ufs-image") in found
    assert ("unpack", "ufs-image") not in found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_ended_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    """In the middle of a mount: what stays is a mount or a trace instance below its directory."""
    command = [sys.executable, "-m", "bench.suite", "--quick", "--place", tmp_path, "--subject", "ufs", "--", "files"]
    run = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: fuse_mounts([tmp_path]), "a mount of the bench", 60)
        run.send_signal(number)
        said = run.communicate(timeout=60)[1]
    finally:
        run.kill()
        run.wait()
    assert "interrupted; nothing is left behind" in said
    assert not list(tmp_path.iterdir())
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


def test_launching(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    bench("--json", figures, "--placement", "free", "--", "launching")
    found = {(row["workload"], row["subject"]) for row in json.loads(figures.read_text())}
    assert {("launch", "ufs"), ("load", "ufs"), ("archive-start", "ufs")} <= found


@pytest.mark.parametrize("group", [group for group in workloads.GROUPS if group.name in {"small", "renamed", "big"}])
def test_the_commands_leave_what_they_should(group: workloads.Group, tmp_path: Path) -> None:
    """Run on a plain directory, what is there afterwards shows that the work was done."""
    (lower,) = group.make(tmp_path, TINY)
    before = {path.name for path in lower.iterdir()}
    variables = {"PATH": "/usr/bin:/bin", "CONTENT": str(tmp_path), "SUITE": str(CHECKOUT / "bench/suite")}
    seen = {}
    for step in group.steps:
        command = workloads.filled(f"{step.prepare or ':'}\n{step.command}", TINY)
        subprocess.run(["sh", "-ec", command], cwd=lower, env=variables, check=True)
        seen[step.name] = {path.relative_to(lower).as_posix(): path.stat() for path in lower.rglob("*")}
    if group.name == "small":
        assert sum("file-" in name for name in seen["unpack"]) == 2 * TINY.small
        assert all(status.st_mode & 0o020 for name, status in seen["chmod-all"].items() if name.startswith("new"))
        assert not any(name.startswith("new") for name in seen["remove-new"])
        assert not seen["remove-lower"]
    elif group.name == "renamed":
        assert sum(name.startswith("moved/") and "file-" in name for name in seen["rename-dir"]) == TINY.renamed
        assert before == {"tree"}
    else:
        assert seen["write-big-cold"]["new"].st_size == TINY.big_mib << 20
        assert (lower / "big").read_bytes()[0] == 0


def test_content_is_the_same_every_time(tmp_path: Path) -> None:
    names = [content.spread(tmp_path / name, 30) for name in ("a", "b")]
    assert names[0] == names[1]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names[0])


def test_the_chart_is_drawn_from_the_figures(tmp_path: Path) -> None:
    shape = {"placement": "free", "runs": 1, "requests": None, "cpu": None, "peak": None}
    rows = [
        {"workload": "walk-cold", "subject": "fuse-overlayfs", "seconds": 2.0, **shape},
        {"workload": "walk-cold", "subject": "ufs", "seconds": 0.5, **shape},
        {"workload": "unpack", "subject": "ufs", "seconds": 1.0, **shape},
    ]
    (tmp_path / "figures.json").write_text(json.dumps(rows))
    printed = bench("--chart", tmp_path / "figures.json", "--svg", tmp_path / "chart.svg")
    texts = [element.text for element in ElementTree.parse(tmp_path / "chart.svg").iter() if element.text]
    assert "walk-cold" in texts
    assert "0.25" in texts
    assert "unpack" not in texts
    assert "| walk-cold | 2.000 | 0.500 | 0.25 | 0.25 | met |" in printed
