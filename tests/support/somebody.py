"""Acting as another user: in a child that gives up everything it may."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.child import errno_in_child


@dataclass(frozen=True)
class Somebody:
    """A user with a group and supplementary groups. Only root can act as one."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()

    def attempt(self, root: Path, act: Callable[[], object]) -> int:
        """What `act` raised (an errno), or 0. It stands in `root`, above which all may be closed to this user."""

        def acting() -> None:
            os.chdir(root)
            os.setgroups(self.groups)
            os.setresgid(self.gid, self.gid, self.gid)
            os.setresuid(self.uid, self.uid, self.uid)
            act()

        return errno_in_child(acting)

    def may(self, root: Path, act: Callable[[], object]) -> None:
        """Assert that `act` succeeds."""
        code = self.attempt(root, act)
        assert not code, errno.errorcode.get(code, code)

    def gets(self, code: int, root: Path, act: Callable[[], object]) -> None:
        """Assert that `act` fails with this errno."""
        found = self.attempt(root, act)
        assert found == code, f"{errno.errorcode.get(found, found)} instead of {errno.errorcode[code]}"


OWNER = Somebody(4001, 4001)
MATE = Somebody(4002, 4002, (4001, 4100))
"""In the owner's group, by a supplementary one."""
OTHER = Somebody(4003, 4003)
IN_ROOTS_GROUP = Somebody(4004, 4004, (0,))
"""What nobody changed belongs to root and to root's group."""
