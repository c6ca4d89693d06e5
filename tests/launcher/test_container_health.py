"""Health checks: the image's HEALTHCHECK and --health-*, run by the supervisor."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import tarfile
from pathlib import Path
from typing import Any

import pytest

from launcher.container import health
from launcher.container.config import Health
from launcher.errors import UfsError
from tests.launcher.containers import Containers
from tests.support.users import User
from tests.support.waiting import wait_until

OFTEN = ("--health-interval", "20ms")
GIVEN = dict.fromkeys(
    [f"health_{key}" for key in ("cmd", "interval", "timeout", "retries", "start_period", "start_interval")]
) | {"no_healthcheck": False}  # fmt: skip


def known(ufs: Containers, name: str) -> dict[str, Any]:
    return dict(json.loads(ufs.out("inspect", "-f", "{{json .State.Health}}", name)))


def becomes(ufs: Containers, name: str, status: str) -> None:
    wait_until(lambda: known(ufs, name)["Status"] == status, status)


def test_it_follows_what_the_checks_say(ufs: Containers) -> None:
    """In the container, with its directory and variables; the last five are kept."""
    check = 'echo "$PWD $A"; test -e /well'
    identity = ufs.background(
        "--name", "hh", *OFTEN, "--health-retries", "2", "-w", "/tmp", "-e", "A=1", "--health-cmd", check
    )
    assert known(ufs, "hh")["Status"] in ("starting", "unhealthy")
    becomes(ufs, "hh", "unhealthy")
    assert ufs.status("hh").endswith(" (unhealthy)")
    found = known(ufs, "hh")
    assert found["FailingStreak"] >= 2
    assert (found["Log"][0]["ExitCode"], found["Log"][0]["Output"]) == (1, "/tmp 1\n")
    assert set(found["Log"][0]) == {"Start", "End", "ExitCode", "Output"}
    ufs.out("exec", "hh", "touch", "/well")
    becomes(ufs, "hh", "healthy")
    assert ufs.status("hh").endswith(" (healthy)")
    wait_until(lambda: len(known(ufs, "hh")["Log"]) == 5, "five")
    assert known(ufs, "hh")["FailingStreak"] == 0
    assert ufs.out("ps", "-q", "--no-trunc", "--filter", "health=healthy") == identity
    assert ufs.out("ps", "-q", "--filter", "health=unhealthy", "--filter", "health=none") == ""
    ufs.out("stop", "-t", "0", "hh")
    assert known(ufs, "hh")["Status"] == "unhealthy", "as docker has it of one that does not run"
    ufs.out("start", "hh")
    becomes(ufs, "hh", "healthy")


def test_a_check_that_takes_too_long_is_killed_and_one_that_cannot_run_says_why(root_ufs: Containers) -> None:
    root_ufs.background(
        "--name", "late", *OFTEN, "--health-timeout", "50ms", "--health-cmd", "echo begun; exec sleep 4321"
    )
    becomes(root_ufs, "late", "unhealthy")
    result = known(root_ufs, "late")["Log"][-1]
    assert (result["ExitCode"], result["Output"].partition(":")[0]) == (-1, "Health check exceeded timeout (0.05s)")
    wait_until(lambda: known(root_ufs, "late")["FailingStreak"] > 5, "some more")
    listed = root_ufs.out(
        "exec", "late", "sh", "-c", "for p in /proc/[0-9]*/cmdline; do { xargs -0 < $p; } 2>/dev/null; done; true"
    )
    assert listed.splitlines().count("sleep 4321") <= 1, "none of those before is left"
    root_ufs.background("--name", "no", *OFTEN, "--health-cmd", "true", "--user", "4711", "-w", "/nosuch/dir")
    becomes(root_ufs, "no", "healthy")


def test_the_image_s_check(ufs: Containers) -> None:
    """As docker build writes it; --no-healthcheck leaves it out. Shown with Docker's fields."""
    check = {"Test": ["CMD", "nosuch"], "Interval": 20_000_000, "Retries": 1}
    ufs.user.own(with_check(Path(ufs.image), ufs.user.home / "image.tar", check))
    ufs.out("run", "-d", "--name", "hh", "./image.tar", "sleep", "1000")
    becomes(ufs, "hh", "unhealthy")
    result = known(ufs, "hh")["Log"][-1]
    assert result["ExitCode"] == 127
    assert "not found in PATH" in result["Output"]
    template = "{{json .Config.Healthcheck.Test}} {{.Config.Healthcheck.Interval}} {{.Config.Healthcheck.Retries}}"
    assert ufs.out("inspect", "-f", template, "hh") == '["CMD","nosuch"] 20000000 1'
    ufs.out("run", "-d", "--name", "not", "--no-healthcheck", "./image.tar", "sleep", "1000")
    assert ufs.out("ps", "-q", "--no-trunc", "--filter", "health=none") == ufs.out("inspect", "-f", "{{.Id}}", "not")
    assert ufs.status("not") in ("Up Less than a second", "Up 1 second")


def with_check(archive: Path, path: Path, check: dict[str, Any]) -> Path:
    """A copy of a docker archive whose config has a Healthcheck."""
    with tarfile.open(archive) as old, tarfile.open(path, "w") as new:
        manifest = json.load(old.extractfile("manifest.json"))  # type: ignore[arg-type]
        config = json.load(old.extractfile(manifest[0]["Config"]))  # type: ignore[arg-type]
        config["config"]["Healthcheck"] = check
        text = json.dumps(config).encode()
        before, manifest[0]["Config"] = manifest[0]["Config"], f"{hashlib.sha256(text).hexdigest()}.json"
        for member in old:
            if member.name not in ("manifest.json", before):
                new.addfile(member, old.extractfile(member) if member.isreg() else None)
        for name, data in ((manifest[0]["Config"], text), ("manifest.json", json.dumps(manifest).encode())):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            new.addfile(entry, io.BytesIO(data))
    return path


def test_the_checks_go_on_in_the_small_supervisor(root_ufs: Containers) -> None:
    identity = root_ufs.background("--name", "hh", "--health-interval", "1s", "--health-cmd", "true")
    pid = int(Path(f"/proc/{root_ufs.saved(identity)['pid']}/stat").read_text().rpartition(")")[2].split()[1])
    wait_until(lambda: b"small.py" in Path(f"/proc/{pid}/cmdline").read_bytes(), "it to be small")
    before = known(root_ufs, "hh")["Log"][-1:]
    wait_until(lambda: known(root_ufs, "hh")["Log"][-1:] != before, "another check")
    kilobytes = Path(f"/proc/{pid}/smaps_rollup").read_text().split("Pss:")[1].split()[0]
    assert int(kilobytes) <= 15_000
    os.kill(pid, signal.SIGKILL)
    root_ufs.ends("hh")
    assert known(root_ufs, "hh")["Status"] == "unhealthy"


def test_nothing_is_checked_while_it_is_paused(root_ufs: Containers) -> None:
    root_ufs.background("--name", "hh", *OFTEN, "--health-cmd", "true")
    becomes(root_ufs, "hh", "healthy")
    root_ufs.out("pause", "hh")
    before = known(root_ufs, "hh")
    assert root_ufs.status("hh").endswith(" (Paused)")
    root_ufs.out("unpause", "hh")
    wait_until(lambda: known(root_ufs, "hh") != before, "another check")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--health-interval", "1s"], "--health-interval: nothing is checked"),
        (["--health-cmd", "x", "--health-interval", "often"], "--health-interval often: give a time"),
        (["--health-cmd", "x", "--health-timeout", "1us"], "--health-timeout 1us: the least is 1ms"),
        (["--health-cmd", "x", "--health-retries", "-1"], "--health-retries -1: give a number"),
        (["--health-cmd", "x", "--no-healthcheck"], "exclude each other"),
        (["--health-on-failure", "kill", "--health-cmd", "x"], "is only shown"),
    ],
)
def test_what_is_no_check(root_user: User, words: list[str], says: str) -> None:
    done = root_user.run(["ufs", "create", *words, "host", "true"])
    assert (done.returncode, done.stderr.count("\n")) == (125, 1)
    assert says in done.stderr


def test_the_image_s_check_and_the_options_over_it() -> None:
    image: dict[str, Any] = {"Test": ["CMD-SHELL", "curl -f /"], "Interval": 10**10, "Retries": 7}
    found = health.wanted(image, [], GIVEN)
    assert found == Health(["/bin/sh", "-c", "curl -f /"], image["Test"], interval=10.0, retries=7)
    found = health.wanted(image, ["/bin/ash", "-ec"], {**GIVEN, "health_timeout": "1m30s", "health_retries": "2"})
    assert found is not None
    assert (found.argv[0], found.interval, found.timeout, found.retries) == ("/bin/ash", 10.0, 90.0, 2)
    found = health.wanted({"Test": ["CMD", "a", "b"]}, [], GIVEN)
    assert found == Health(["a", "b"], ["CMD", "a", "b"])
    none: list[dict[str, Any]] = [{}, {"Test": ["NONE"]}, {"Test": []}]
    for nothing in none:
        assert health.wanted(nothing, [], GIVEN) is None
    assert health.wanted(image, [], {**GIVEN, "no_healthcheck": True}) is None
    for bad in ({"Test": "x"}, {"Test": ["CMD", "x"], "Interval": "1s"}, {"Test": ["WHO", "x"]}):
        with pytest.raises(UfsError, match="--no-healthcheck leaves it out"):
            health.wanted(bad, [], GIVEN)


def test_failures_count_from_the_end_of_the_start_period_on() -> None:
    """moby, daemon/health.go, handleProbeResult."""
    check = Health(["x"], ["CMD", "x"], start_period=10.0, retries=2)
    bad, good = {"ExitCode": 1}, {"ExitCode": 0}
    now: dict[str, Any] = {"Status": "starting", "FailingStreak": 0, "Log": []}
    for result, age, status, streak in [
        (bad, 1, "starting", 0), (bad, 9, "starting", 0), (bad, 10, "starting", 1), (bad, 11, "unhealthy", 2),
        (good, 12, "healthy", 0), (bad, 5, "healthy", 1), (bad, 5, "unhealthy", 2),
    ]:  # fmt: skip
        now = health.after(check, now, result, age)
        assert (now["Status"], now["FailingStreak"]) == (status, streak)
    assert len(now["Log"]) == 5
