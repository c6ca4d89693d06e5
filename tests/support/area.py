"""The session's own directory below /tmp, which everybody may enter: installed copy, homes, images."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from functools import cached_property
from pathlib import Path

from tests.support.installed import Installed, install
from tests.support.users import User, make_user, remove_home


class Area:
    """Made once a session; `close` removes it."""

    def __init__(self) -> None:
        # Not below pytest's own base: that is closed to other users, and long paths do not fit a socket's name.
        self.path = Path(tempfile.mkdtemp(prefix="ufs-tests-", dir="/tmp"))
        self.path.chmod(0o755)
        self._numbers = itertools.count()
        self._users: list[User] = []

    @cached_property
    def installed(self) -> Installed:
        base = self.path / "installed"
        base.mkdir(mode=0o755)
        return install(base)

    def new_user(self, kind: str) -> User:
        """A user of this kind with a fresh home. It stays until `forget` or the end of the session."""
        home = self.path / f"{kind}{next(self._numbers)}"
        user = make_user(kind, home, self.installed.bin)
        self._users.append(user)
        return user

    def forget(self, user: User) -> None:
        self._users.remove(user)
        remove_home(user)

    def share(self, path: Path) -> Path:
        """`path`, a file or a directory, as a copy that everybody may read; made once."""
        folder = self.path / "shared" / path.parent.name
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        target = folder / path.name
        if not target.exists():
            if path.is_dir():
                shutil.copytree(path, target)
                for entry in (target, *target.rglob("*")):
                    entry.chmod(0o755 if entry.is_dir() else 0o644)
            else:
                shutil.copyfile(path, target)
                target.chmod(0o644)
        return target

    def close(self) -> None:
        for user in list(self._users):
            self.forget(user)
        shutil.rmtree(self.path)
