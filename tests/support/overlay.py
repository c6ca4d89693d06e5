"""A union that a user mounts with `ufs-mount` over directories of his own, and scripts that he runs in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.mounts import fuse_mounts
from tests.support.users import ROOT, User
from tests.support.waiting import wait_until


class Overlay:
    """`low`, `up`, `work` and `merged` below `base`, made by the user."""

    def __init__(self, user: User, base: Path, engine: str = "direct", lower: str = "low") -> None:
        self.user, self.base = user, base
        self.upper = base / "up"
        self._engine = engine
        self._options = f"lowerdir={lower},upperdir=up,workdir=work"
        user.run(["mkdir", "-p", "low", "up", "work", "merged"], cwd=base, check=True)

    @contextmanager
    def mounted(self, *options: str) -> Iterator[None]:
        """Mounted inside the block, with further options for -o."""
        target = self.base / "merged"
        words = ["--engine", self._engine, "-o", ",".join([self._options, *options]), "merged"]
        self.user.run(["ufs-mount", *words], cwd=self.base, check=True)
        try:
            yield
        finally:
            umount = ["umount"] if self.user.kind == ROOT else ["fusermount3", "-u"]
            self.user.run([*umount, target], check=True)
            wait_until(lambda: not fuse_mounts([target]), f"{target} to be unmounted")

    def sh(self, script: str, where: str = "merged", check: bool = True) -> str:
        """Run a script there; its output. It enters by itself: a user's mount is closed to others, root too."""
        done = self.user.run(["bash", "-c", f"set -e; cd {where}; {script}"], cwd=self.base)
        assert done.returncode == 0 or not check, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr
