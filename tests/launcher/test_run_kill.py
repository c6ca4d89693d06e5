"""Killing any process of a container at any moment: no mount, no process, no temporary stays."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from tests.launcher.running import Runner
from tests.support import processes
from tests.support.users import User
from tests.support.waiting import settles, wait_until

BUSY = "while :; do echo x >> /f; mkdir -p /a/b; rm -r /a; done"


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def is_init(pid: int) -> bool:
    try:
        words = Path(f"/proc/{pid}/status").read_text().split("NSpid:")[1].split("\n")[0].split()
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return False
    return len(words) > 1 and words[-1] == "1"


def start(run: Runner, *options: str) -> subprocess.Popen[bytes]:
    return run.user.popen(
        ["ufs-run", *options, run.image, "sh", "-c", BUSY], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def ended(process: subprocess.Popen[bytes], before: set[int]) -> bytes:
    """Wait for the launcher and for everything that it started."""
    _, words = process.communicate(timeout=20)
    wait_until(lambda: not processes.descendants() - before, "all processes to end")
    assert b"Traceback" not in words, words.decode()
    return words


def server_of(launcher: int) -> int | None:
    return next((pid for pid in children(launcher) if not is_init(pid)), None)


def init_of(launcher: int) -> int | None:
    return next((pid for pid in children(launcher) if is_init(pid)), None)


def running(run: Runner) -> bool:
    return any('"running"' in path.read_text() for path in (run.user.store / "containers").glob("*/state.json"))


TARGETS: dict[str, Callable[[int], int | None]] = {
    "launcher": lambda launcher: launcher,
    "server": server_of,
    "command": init_of,
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("keep", [False, True])
def test_killed_while_the_command_works(run: Runner, target: str, keep: bool) -> None:
    before = processes.descendants()
    run.kept("--name", "load-it-first", "IMAGE", "true", check=True)
    process = start(run, *([] if keep else ["--rm"]))
    wait_until(lambda: running(run), "the container to run")
    victim = TARGETS[target](process.pid)
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    words = ended(process, before)
    expected = {"launcher": -9, "server": 125, "command": 137}
    assert process.returncode == expected[target]
    lines = [line for line in words.splitlines() if line.startswith(b"ufs: ")]
    if target == "server":
        assert len(lines) == 1
        assert b"file system server was killed by signal 9" in lines[0]
    assert len(run.containers()) == (2 if keep else 1)
    assert list((run.user.store / "containers").glob("*/work")) == []


def nth_process(launcher: int, number: int, process: subprocess.Popen[bytes]) -> int | None:
    """The launcher (0) or its nth child, as soon as it is there; None when the launcher ended before."""
    if number == 0:
        return launcher
    settles(lambda: len(children(launcher)) >= number or process.poll() is not None, 5)
    return next(iter(children(launcher)[number - 1 : number]), None)


def _is_over(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is not None


@pytest.mark.parametrize("round_", range(3))
def test_killed_at_any_moment_of_the_start(run: Runner, round_: int) -> None:
    """Each process, at moments that differ by what the others have done by then: counted in looks at /proc."""
    before = processes.descendants()
    run.kept("--name", "load-it-first", "IMAGE", "true", check=True)
    for number, looks in itertools.product(range(3), range(round_, 24, 3)):
        process = start(run, "--rm")
        victim = nth_process(process.pid, number, process)
        for _ in range(looks**2):
            processes.alive(process.pid)
        if victim is not None:
            with suppress(ProcessLookupError):  # it was one that lives for a moment only
                os.kill(victim, signal.SIGKILL)
        settles(partial(_is_over, process), 0.3)
        if process.poll() is None:
            process.kill()
        ended(process, before)
    # What a launcher left that was killed before its first fork goes with the next start.
    run.kept("--rm", "IMAGE", "true", check=True)
    assert len(run.containers()) == 1
    assert list((run.user.store / "containers").glob(".new-*")) == []


def test_a_running_container_is_seen_and_removed(run: Runner) -> None:
    before = processes.descendants()
    process = start(run, "--name", "busy")
    wait_until(lambda: running(run), "the container to run")
    assert "busy" in ufs(run.user, "ps")
    refused = run.user.run(["ufs", "rm", "busy"])
    assert (refused.returncode, "is running" in refused.stderr) == (1, True)
    ufs(run.user, "rm", "--force", "busy")
    ended(process, before)
    assert run.containers() == []


def test_a_container_whose_launcher_was_killed(run: Runner) -> None:
    before = processes.descendants()
    process = start(run, "--name", "orphan")
    wait_until(lambda: running(run), "the container to run")
    process.kill()
    ended(process, before)
    assert ufs(run.user, "ps").count("\n") == 1
    assert "Exited (137) Less than a second ago (its supervisor was killed)" in ufs(run.user, "ps", "--all")
    ufs(run.user, "rm", "orphan")
    assert run.containers() == []


def ufs(user: User, *words: str) -> str:
    return str(user.run(["ufs", *words], check=True).stdout)
