"""Running commands in the busybox image as one user."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from tests.support.users import User


class Runner:
    """Runs commands in the busybox image as one user."""

    def __init__(self, user: User, archive: Path) -> None:
        self.user = user
        self.archive = archive
        self.image = os.fspath(archive)

    def __call__(self, *words: str, **kw: Any) -> subprocess.CompletedProcess[Any]:
        return self.user.run(["ufs-run", "--rm", *self._with_image(words)], **kw)

    def kept(self, *words: str, **kw: Any) -> subprocess.CompletedProcess[Any]:
        return self.user.run(["ufs-run", *self._with_image(words)], **kw)

    def out(self, *words: str, **kw: Any) -> str:
        done = self(*words, check=True, **kw)
        assert done.stderr == ""
        return str(done.stdout)

    def _with_image(self, words: tuple[str, ...]) -> list[str]:
        return [self.image if word == "IMAGE" else word for word in words]

    def containers(self) -> list[Path]:
        return sorted((self.user.store / "containers").glob("*"))
