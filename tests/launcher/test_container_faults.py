"""Full disks, read-only stores, and kills at random moments."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.images import Images
from tests.launcher.containers import Containers
from tests.support.users import User
from tests.support.waiting import wait_until


@pytest.fixture
def small(root_user: User, images: Images) -> Iterator[Containers]:
    """Root's containers in a store of 24 MB."""
    root_user.store.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "small", root_user.store], check=True)
    made = Containers(root_user, images.path("busybox", "docker.tar"))
    yield made
    made.close()
    subprocess.run(["umount", root_user.store], check=True)


@pytest.mark.only_root
def test_a_full_disk(small: Containers) -> None:
    """What needs room says so and leaves nothing; what runs goes on, and how it ends is recorded."""
    small.out("run", "--name", "old", "IMAGE", "echo", "word")
    small.background("--name", "web")
    fill = small.user.store / "fill"
    full = subprocess.run(["dd", "if=/dev/zero", f"of={fill}", "bs=64k"], stderr=subprocess.PIPE)
    assert b"No space left" in full.stderr
    for words in (["run", "IMAGE", "true"], ["run", "-d", "IMAGE", "true"], ["create", "IMAGE", "true"]):
        assert "config.json: No space left on device" in small.fails(*words, status=125)
    assert "No space left on device" in small.fails("rename", "old", "new")
    small.out("pause", "web")
    small.out("stop", "-t", "0", "web")
    assert small.status("web").startswith("Exited (143)")
    assert small.out("logs", "old") == "word"
    fill.unlink()
    assert sorted(small.out("ps", "-a", "--format", "{{.Names}}").split()) == ["old", "web"]
    assert small.out("start", "web") == "web"


@pytest.mark.only_root
def test_a_read_only_store(small: Containers) -> None:
    """Can be looked at; everything else is refused on one line."""
    small.out("run", "--name", "old", "IMAGE", "echo", "word")
    name = small.out("inspect", "-f", "{{.Image}}", "old")
    subprocess.run(["mount", "-o", "remount,ro", small.user.store], check=True)
    try:
        assert small.status("old").startswith("Exited (0)")
        assert small.out("logs", "old") == "word"
        assert small.out("inspect", "-f", "{{.State.Status}}", "old") == "exited"
        for words in (["start", "old"], ["rm", "old"], ["rename", "old", "new"]):
            assert "Read-only file system" in small.fails(*words)
        for words in (["run", name, "true"], ["run", "-d", name, "true"], ["create", name, "true"]):
            assert "Read-only file system" in small.fails(*words, status=125)
    finally:
        subprocess.run(["mount", "-o", "remount,rw", small.user.store], check=True)


def test_an_image_that_went_away(ufs: Containers) -> None:
    ufs.out("create", "--name", "one", "IMAGE", "true")
    (ufs.user.store / "index.json").write_text('{"schemaVersion": 2, "manifests": []}')
    said = ufs.fails("start", "one")
    assert "the image" in said
    assert "is gone; load it again" in said
    assert ufs.state("one") == "created"


def test_a_soak_with_kills_at_random_moments(ufs: Containers) -> None:
    """Six at a time, any process of theirs; the store is as it was, and no process is left (every test looks)."""
    ufs.out("run", "--rm", "IMAGE", "true")
    containers = ufs.user.store / "containers"

    def life(number: int) -> list[str]:
        dice, name, complaints = random.Random(number), f"soak{number}", []
        option = ["--rm"] if number % 3 == 0 else []
        identity = ufs.background("--name", name, *option, script="while :; do echo x; echo y >> /f; done")
        for _ in range(3):
            done = ufs.run(*dice.choice([["kill"], ["restart", "-t", "0"], ["start"], ["pause"], ["ps"]]), name)
            complaints += [done.stderr] if "Traceback" in done.stderr or done.returncode not in (0, 1, 2) else []
            kill_one(containers / identity / "state.json", dice)
        done = ufs.run("rm", "--force", name)
        return complaints + ([done.stderr] if done.returncode else [])

    with ThreadPoolExecutor(10) as pool:
        assert [line for lines in pool.map(life, range(6)) for line in lines] == []
    ufs.out("run", "--rm", "IMAGE", "true")
    wait_until(lambda: list(containers.iterdir()) == [], "nothing to be left")


def kill_one(path: Path, dice: random.Random) -> None:
    """SIGKILL for the command, the server or the supervisor, where it runs."""
    with suppress(FileNotFoundError, ProcessLookupError, KeyError):
        saved = json.loads(path.read_text())
        with open(f"/proc/{saved['pid']}/stat", "rb") as file:
            supervisor = int(file.read().rpartition(b")")[2].split()[1])
        victim = dice.choice([saved["pid"], saved["server"], supervisor])
        if victim not in (1, os.getpid()):
            os.kill(victim, signal.SIGKILL)
