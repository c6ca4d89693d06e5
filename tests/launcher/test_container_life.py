"""The life of a container: create, start, stop, kill, restart, wait, pause, rename, rm."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.launcher.containers import Containers
from tests.support import processes
from tests.support.waiting import wait_until


def test_create_and_start(ufs: Containers) -> None:
    """The layer is there from the beginning, and is the same at every start."""
    identity = ufs.out("create", "--name", "one", "IMAGE", "sh", "-c", "echo x >> /n; wc -l < /n; exit 5")
    assert len(identity) == 64
    assert (ufs.state("one"), ufs.out("ps")) == ("created", ufs.out("ps", "--filter", "name=nosuch"))
    assert ufs.out("ps", "-aq", "--no-trunc") == identity
    assert ufs.out("start", "one") == "one"
    assert ufs.out("wait", "one") == "5"
    assert ufs.run("start", "--attach", "one").returncode == 5
    assert ufs.out("logs", "one") == "1\n2"
    assert ufs.status("one") == "Exited (5) Less than a second ago"


def test_run_in_the_background(ufs: Containers) -> None:
    identity = ufs.out("run", "-d", "--name", "web", "--cidfile", "id", "IMAGE", "sh", "-c", "echo here; sleep 1000")
    assert (ufs.user.home / "id").read_text() == identity
    assert "the file is there already" in ufs.fails("run", "--cidfile", "id", "IMAGE", "true", status=125)
    assert ufs.state("web") == "running"
    assert ufs.status("web").startswith("Up ")
    assert ufs.out("stop", "-t", "5", "web") == "web"
    assert ufs.saved(identity)["status"] == 143
    assert ufs.out("stop", "web") == "web", "one that has ended is stopped"


def test_what_cannot_be_started_says_so(ufs: Containers) -> None:
    assert "nosuch" in ufs.fails("run", "-d", "IMAGE", "nosuch", status=127)
    ufs.out("create", "--name", "bad", "IMAGE", "/etc")
    assert ufs.fails("start", "bad", status=1)
    assert ufs.saved(ufs.out("ps", "-aq", "--no-trunc", "--filter", "name=bad"))["status"] == 126


def test_stop_kills_what_does_not_end(ufs: Containers) -> None:
    ufs.background(
        "--name", "deaf", "--stop-signal", "USR1", script="trap '' TERM USR1; echo up; while :; do sleep 1000; done"
    )
    wait_until(lambda: ufs.out("logs", "deaf") == "up", "it to be deaf")
    assert ufs.out("stop", "-t", "0", "deaf") == "deaf"
    assert ufs.out("wait", "deaf") == "137"


def test_kill_sends_any_signal(ufs: Containers) -> None:
    ufs.background("--name", "kk", script="trap 'echo usr1' USR1; echo up; while :; do sleep 0.02; done")
    wait_until(lambda: ufs.out("logs", "kk") == "up", "the trap")
    assert ufs.out("kill", "-s", "SIGUSR1", "kk") == "kk"
    wait_until(lambda: "usr1" in ufs.out("logs", "kk"), "the signal")
    assert "no signal 'NOSUCH'" in ufs.fails("kill", "-s", "NOSUCH", "kk")
    assert ufs.out("kill", "kk") == "kk"
    assert ufs.out("wait", "kk") == "137"
    assert "is not running: it is exited" in ufs.fails("kill", "kk")


def test_restart(ufs: Containers) -> None:
    identity = ufs.background("--name", "again")
    first = ufs.saved(identity)["pid"]
    ufs.out("restart", "-t", "0", "again")
    assert ufs.state("again") == "running"
    assert not processes.alive(first)
    ufs.out("stop", "-t", "0", "again")
    ufs.out("restart", "again")
    assert ufs.state("again") == "running"


def test_pause(ufs: Containers) -> None:
    ufs.background("--name", "pp", script="while :; do echo x; sleep 0.01; done")
    ufs.out("pause", "pp")
    assert (ufs.state("pp"), "(Paused)" in ufs.status("pp")) == ("paused", True)
    before = ufs.out("logs", "pp")
    assert "is paused: unpause it first" in ufs.fails("exec", "pp", "true")
    assert "is paused: unpause it first" in ufs.fails("start", "pp")
    assert "is paused already" in ufs.fails("pause", "pp")
    assert "is paused: stop it first" in ufs.fails("rm", "pp")
    assert ufs.out("logs", "pp") == before
    ufs.out("unpause", "pp")
    wait_until(lambda: ufs.out("logs", "pp") != before, "it to go on")
    assert "is not paused" in ufs.fails("unpause", "pp")
    ufs.out("pause", "pp")
    assert ufs.out("stop", "-t", "1", "pp") == "pp", "a paused one can be stopped"


def test_rename_and_names(ufs: Containers) -> None:
    identity = ufs.background("--name", "one")
    ufs.background("--name", "two")
    assert "is taken by container" in ufs.fails("rename", "one", "two", status=125)
    assert "a name has 2 to 128" in ufs.fails("rename", "one", "../x", status=125)
    ufs.out("rename", "one", "three")
    assert ufs.out("ps", "-q", "--filter", "name=^three$") == identity[:12]
    assert ufs.out("kill", identity[:6]) == identity[:6]
    assert "no container 'one'" in ufs.fails("kill", "one")
    assert ufs.run("rm", "nosuch", "three").returncode == 1
    assert ufs.run("rm", "--force", "nosuch").returncode == 0, "as docker's"
    assert ufs.out("ps", "-a", "--format", "{{.Names}}") == "two"
    assert "is running: stop it first" in ufs.fails("rm", "two")


def test_rm_with_a_running_one_removed_at_its_end(ufs: Containers) -> None:
    ufs.background("--rm", "--name", "gone")
    assert ufs.out("stop", "-t", "0", "gone") == "gone"
    wait_until(lambda: not list((ufs.user.store / "containers").iterdir()), "nothing to be left")


@pytest.mark.parametrize("victim", ["pid", "server", "supervisor", "all"])
def test_the_truth_after_a_kill(ufs: Containers, victim: str) -> None:
    identity = ufs.background("--name", "vv")
    saved = ufs.saved(identity)
    parent = processes_parent(saved["pid"])
    victims = {"pid": [saved["pid"]], "server": [saved["server"]], "supervisor": [parent]}
    for pid in victims.get(victim, [parent, saved["server"], saved["pid"]]):
        os.kill(pid, signal.SIGKILL)
    ufs.ends("vv")
    expected = {
        "pid": "Exited (137) ",
        "server": "Exited (125) ",
        "supervisor": "Exited (137) ",
        "all": "Exited (137) ",
    }
    assert ufs.status("vv").startswith(expected[victim])
    if victim in ("supervisor", "all"):
        assert "(its supervisor was killed)" in ufs.status("vv")
    assert ufs.out("start", "vv") == "vv"
    assert ufs.state("vv") == "running"


def processes_parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[1])


def test_after_another_boot_and_with_a_pid_of_somebody_else(ufs: Containers) -> None:
    """state.json says running, with a pid that lives: nothing of that counts without the lock."""
    identity = ufs.background("--name", "old")
    ufs.out("kill", "old")
    ufs.ends("old")
    path = ufs.user.store / "containers" / identity / "state.json"
    text = '{"state":"running","at":1,"pid":%d,"server":%d,"created":[],"ticks":1,"boot":"%s"}'
    path.write_text(text % (os.getpid(), os.getpid(), "another"))
    assert "(the machine was restarted)" in ufs.status("old")
    assert "is exited, not running" in ufs.fails("exec", "old", "true")
    ufs.out("rm", "--force", "old")


@pytest.mark.parametrize(("file", "text"), [("config.json", "{"), ("state.json", "[]")])
def test_a_damaged_one_harms_no_other(ufs: Containers, file: str, text: str) -> None:
    identity = ufs.out("create", "--name", "bad", "IMAGE", "true")
    ufs.out("create", "--name", "good", "IMAGE", "true")
    (ufs.user.store / "containers" / identity / file).write_text(text)
    assert ufs.out("ps", "-a", "--filter", "status=dead", "--format", "{{.ID}} {{.State}}") == f"{identity[:12]} dead"
    assert f"Dead ({file} is damaged" in ufs.out("ps", "-a", "--format", "{{.Status}}") or file == "state.json"
    assert "is damaged" in ufs.fails("start", identity[:12])
    assert ufs.out("start", "-a", "good") == ""
    ufs.out("rm", identity[:12])
    assert ufs.out("ps", "-a", "--format", "{{.Names}}") == "good"


def test_ten_commands_at_once(ufs: Containers) -> None:
    """One starts it, all succeed; one removes it, the others find it gone."""
    ufs.out("create", "--name", "many", "IMAGE", "sh", "-c", "echo begun; sleep 1000")
    with ThreadPoolExecutor(10) as pool:
        done = list(pool.map(lambda _: ufs.run("start", "many"), range(10)))
        assert [one.returncode for one in done] == [0] * 10, [one.stderr for one in done]
        assert ufs.out("logs", "many") == "begun"
        mixed = [("stop", "-t", "0"), ("restart", "-t", "0"), ("kill",), ("start",)]
        done = list(pool.map(lambda number: ufs.run(*mixed[number % 4], "many"), range(10)))
        assert {one.returncode for one in done} <= {0, 1}
        done = list(pool.map(lambda _: ufs.run("rm", "-f", "many"), range(10)))
        assert ufs.out("ps", "-aq") == ""
    assert list((ufs.user.store / "containers").iterdir()) == []
