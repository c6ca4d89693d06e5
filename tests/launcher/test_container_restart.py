"""Restart policies: what ends is started again by its supervisor, and `start --all` after a start of the machine."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from launcher.container import restart, state
from launcher.container.config import Restart
from tests.launcher.containers import Containers
from tests.support.users import User
from tests.support.waiting import wait_until

COUNTED = "echo x >> /runs; wc -l < /runs; "


def inspected(ufs: Containers, name: str, template: str) -> str:
    return ufs.out("inspect", "-f", template, name)


def restarts(ufs: Containers, name: str) -> int:
    return int(inspected(ufs, name, "{{.RestartCount}}"))


def supervisor_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize(
    ("policy", "status", "runs"),
    [("no", 1, 1), ("on-failure:2", 1, 3), ("on-failure", 0, 1), ("on-failure:0", 0, 1)],
)
def test_how_often_it_runs(ufs: Containers, policy: str, status: int, runs: int) -> None:
    """The layer is the same each time, and the log goes on."""
    ufs.background("--name", "rr", "--restart", policy, script=f"{COUNTED} exit {status}")
    ufs.ends("rr")
    assert ufs.out("logs", "rr") == "\n".join(str(run) for run in range(1, runs + 1))
    assert restarts(ufs, "rr") == runs - 1
    assert ufs.status("rr").startswith(f"Exited ({status}) ")
    assert ufs.out("wait", "rr") == str(status)


def test_it_goes_on_until_it_is_stopped(ufs: Containers) -> None:
    identity = ufs.background("--name", "rr", "--restart", "always", script="exit 3")
    waits_for_long(ufs, identity)
    assert ufs.status("rr").startswith("Restarting (3) ")
    assert ufs.out("ps", "-q", "--no-trunc") == identity, "it counts as running"
    template = "{{.State.Status}} {{.State.Running}} {{.State.Restarting}} {{.State.Pid}} {{.State.ExitCode}}"
    assert inspected(ufs, "rr", template) == "restarting true true 0 3"
    assert "is restarting: stop it first" in ufs.fails("rm", "rr")
    waits_for_long(ufs, identity)
    assert "restarting" in ufs.fails("exec", "rr", "true")
    assert "restarting" in ufs.fails("pause", "rr")
    assert ufs.out("wait", "rr") == "3"
    assert ufs.out("start", "rr") == "rr", "as one that runs"
    assert ufs.out("stop", "rr") == "rr"
    assert (ufs.state("rr"), ufs.saved(identity)["stopped"]) == ("exited", True)
    assert ufs.out("start", "rr") == "rr"
    assert restarts(ufs, "rr") <= 2, "a start by hand counts from the beginning"
    ufs.out("rm", "--force", "rr")
    assert list((ufs.user.store / "containers").iterdir()) == []


def test_the_process_is_killed_and_comes_back_but_not_after_ufs_kill(ufs: Containers) -> None:
    identity = ufs.background("--name", "rr", "--restart", "unless-stopped")
    os.kill(first := ufs.saved(identity)["pid"], signal.SIGKILL)
    wait_until(lambda: ufs.saved(identity).get("pid", first) != first, "another process")
    wait_until(lambda: ufs.state("rr") == "running", "it to run again")
    assert restarts(ufs, "rr") == 1
    assert ufs.run("exec", "rr", "true").returncode == 0
    os.kill(ufs.saved(identity)["server"], signal.SIGKILL)
    wait_until(lambda: restarts(ufs, "rr") == 2 and ufs.state("rr") == "running", "it to run again")
    ufs.out("kill", "rr")
    ufs.ends("rr")
    assert ufs.saved(identity)["stopped"]


def test_a_supervisor_that_waits_takes_little_memory_and_no_cpu(root_ufs: Containers) -> None:
    identity = root_ufs.background("--name", "rr", "--restart", "always", script="exit 1")
    waits_for_long(root_ufs, identity)
    wait_until(lambda: len(holders(identity)) == 1, "it to be alone")
    waiting = holders(identity)
    kilobytes = Path(f"/proc/{waiting[0]}/smaps_rollup").read_text().split("Pss:")[1].split()[0]
    assert int(kilobytes) <= 15_000
    wait_until(lambda: "poll" in Path(f"/proc/{waiting[0]}/wchan").read_text(), "it to wait")
    used = cpu(waiting[0])
    root_ufs.out("update", "--restart", "no", "rr")
    assert cpu(waiting[0]) == used
    os.kill(waiting[0], signal.SIGTERM)
    root_ufs.ends("rr")
    assert not root_ufs.saved(identity)["stopped"], "the end of the session is nobody's wish"


def waits_for_long(ufs: Containers, identity: str) -> None:
    wait_until(lambda: ufs.saved(identity)["state"] == "restarting" and ufs.saved(identity)["delay"] > 1, "a long wait")


def changes(path: Path) -> None:
    before = path.stat().st_ino
    wait_until(lambda: path.stat().st_ino != before, "another state")


def holders(identity: str) -> list[int]:
    return [pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if holds(pid, identity)]


def holds(pid: int, identity: str) -> bool:
    try:
        return any(identity in os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd"))
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False


def cpu(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]


def test_the_end_of_the_session_stops_it_for_now(root_ufs: Containers) -> None:
    identity = root_ufs.background(
        "--name", "rr", "--restart", "always", script="trap 'exit 5' TERM; echo up; while :; do sleep 0.02; done"
    )
    wait_until(lambda: root_ufs.out("logs", "rr") == "up", "the trap")
    os.kill(supervisor_of(root_ufs.saved(identity)["pid"]), signal.SIGTERM)
    root_ufs.ends("rr")
    assert (root_ufs.saved(identity)["status"], root_ufs.saved(identity)["stopped"], restarts(root_ufs, "rr")) == (
        5,
        False,
        0,
    )


def test_what_cannot_be_started_again_is_exited_with_the_reason(root_ufs: Containers) -> None:
    """The image goes away while it waits: nobody is asked, so it is written down."""
    identity = root_ufs.background("--name", "rr", "--restart", "always", script="exit 1")
    waits_for_long(root_ufs, identity)
    (root_ufs.user.store / "index.json").unlink()
    root_ufs.ends("rr")
    assert root_ufs.status("rr").startswith("Exited (125) ")
    assert "is gone; load it again" in root_ufs.saved(identity)["error"]


def test_start_all_brings_back_what_wants_it(ufs: Containers) -> None:
    for policy in ("on-failure", "always", "unless-stopped"):
        ufs.background("--name", policy, "--restart", policy)
    ufs.background("--name", "stopped", "--restart", "unless-stopped")
    ufs.out("create", "--name", "never", "--restart", "always", "IMAGE", "true")
    ufs.out("stop", "-t", "0", "always", "stopped")
    for name in ("on-failure", "unless-stopped"):  # the machine goes down
        saved = ufs.saved(ufs.out("ps", "-aq", "--no-trunc", "--filter", f"name=^{name}$"))
        os.kill(supervisor_of(saved["pid"]), signal.SIGKILL)
        ufs.ends(name)
    ufs.out("start", "--all")
    running = ufs.out("ps", "--format", "{{.Names}}").split()
    assert sorted(running) == ["always", "unless-stopped"]
    assert ufs.run("start", "--all", "stopped").returncode == 2
    assert ufs.run("start").returncode == 2
    ufs.out("stop", "--all", "-t", "0")
    assert ufs.out("ps", "-q") == ""
    ufs.out("start", "--all")
    assert sorted(ufs.out("ps", "--format", "{{.Names}}").split()) == sorted(running), "it was for now"


def test_update(root_ufs: Containers) -> None:
    identity = root_ufs.background("--name", "rr", "--restart", "always")
    assert root_ufs.out("update", "--restart", "on-failure:5", "rr") == "rr"
    shown = json.loads(root_ufs.out("inspect", "rr"))[0]["HostConfig"]["RestartPolicy"]
    assert shown == {"Name": "on-failure", "MaximumRetryCount": 5}
    root_ufs.out("update", "--restart", "no", "rr")
    os.kill(root_ufs.saved(identity)["pid"], signal.SIGKILL)
    root_ufs.ends("rr")
    assert restarts(root_ufs, "rr") == 0
    root_ufs.out("create", "--rm", "--name", "gone", "IMAGE", "true")
    assert "--rm exclude each other" in root_ufs.fails("update", "--restart", "always", "gone")
    assert root_ufs.run("update", "rr").returncode == 2


def test_in_the_foreground_its_first_end_is_told_and_it_goes_on(root_ufs: Containers) -> None:
    done = root_ufs.run(
        "run", "--name", "rr", "--restart", "on-failure:1", "-i", "IMAGE", "sh", "-c", f"{COUNTED} exit 4"
    )
    assert (done.returncode, done.stdout) == (4, "1\n")
    root_ufs.ends("rr")
    assert root_ufs.out("logs", "rr") == "1\n2"


@pytest.mark.parametrize("words", [("always:3",), ("sometimes",), ("on-failure:x",), ("on-failure:-1",)])
def test_no_policies(root_user: User, words: tuple[str]) -> None:
    done = root_user.run(["ufs", "create", "--restart", *words, "host", "true"])
    assert (done.returncode, done.stderr.count("\n")) == (125, 1)
    assert f"--restart {words[0]}: " in done.stderr


def test_docker_s_back_off() -> None:
    """100 ms, doubled up to a minute; from the beginning again after ten seconds of running."""
    ended = state.Exited(1000.0, 1, None, [], 999.0)
    delays: list[float] = []
    for _ in range(12):
        again = restart.after(Restart("always"), ended, delays[-1] if delays else 0.0)
        assert again is not None
        delays.append(again.delay)
    assert delays == [0.1 * 2**number for number in range(10)] + [60.0, 60.0]
    again = restart.after(Restart("always"), ended._replace(started=980.0), 60.0)
    assert again is not None
    assert again.delay == 0.1
