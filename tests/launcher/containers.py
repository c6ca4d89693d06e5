"""Containers as one user has them, by the `ufs` commands."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.support.users import User
from tests.support.waiting import wait_until

READY = "while :; do sleep 1000; done"


class Containers:
    """Runs `ufs` as one user; whatever was made is removed at the end."""

    def __init__(self, user: User, archive: Path) -> None:
        self.user = user
        self.image = str(archive)

    def run(self, *words: str, **kw: Any) -> subprocess.CompletedProcess[Any]:
        """`ufs WORDS`, where IMAGE is the busybox image."""
        return self.user.run(["ufs", *(self.image if word == "IMAGE" else word for word in words)], **kw)

    def out(self, *words: str, **kw: Any) -> str:
        """What it prints, without the last newline; it must work and say nothing else."""
        done = self.run(*words, check=True, **kw)
        assert done.stderr == ""
        return str(done.stdout).removesuffix("\n")

    def fails(self, *words: str, status: int = 1) -> str:
        """The one line of a command that must fail with `status`."""
        done = self.run(*words)
        assert (done.returncode, done.stdout) == (status, "")
        assert done.stderr.startswith("ufs: ")
        assert done.stderr.count("\n") == 1
        return str(done.stderr)

    def background(self, *words: str, script: str = READY) -> str:
        """The id of a container that runs a shell script."""
        return self.out("run", "-d", *words, "IMAGE", "sh", "-c", script)

    def state(self, name: str) -> str:
        return self.out("ps", "-a", "--filter", f"name=^{name}$", "--format", "{{.State}}")

    def status(self, name: str) -> str:
        return self.out("ps", "-a", "--filter", f"name=^{name}$", "--format", "{{.Status}}")

    def saved(self, identity: str) -> dict[str, Any]:
        """state.json as it is."""
        path = self.user.store / "containers" / identity / "state.json"
        return dict(json.loads(path.read_text()))

    def ends(self, name: str) -> None:
        wait_until(lambda: self.state(name) == "exited", f"{name} to end")

    def close(self) -> None:
        left = self.run("ps", "-aq", "--no-trunc").stdout.split()
        if left:
            self.run("rm", "--force", *left)
