"""An ordinary user changes what he may in a view of directories that belong partly to others, as on the disk."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.area import Area
from tests.support.overlay import Overlay
from tests.support.users import PLAIN, User
from unionfs.serve import ENGINES

pytestmark = pytest.mark.only_root  # makes files of several owners, and acts as another user

_CONTENT = """
    umask 022
    mkdir -p home/me/theirs home/other srv/group tmp/theirs etc
    echo mine > home/me/f; echo theirs > home/me/roots; echo t > home/me/theirs/f; ln -s nowhere home/me/link
    mkfifo home/me/pipe; echo all > srv/all; echo g > srv/group/f; echo passwd > etc/passwd; echo t > tmp/theirs/f
    chown -h $1: home/me home/me/f; chgrp $1 srv/group srv/group/f
    chmod 2775 srv/group; chmod 664 srv/group/f; chmod 4766 srv/all; chmod 1777 tmp; chmod 700 home/other
    setfattr -n user.kept -v yes srv/all
"""
_SCRIPTS = {
    "his own": "echo more >> home/me/f; mkdir home/me/new; touch home/me/new/f; mv home/me/new home/me/newer",
    "moved in his directory": "cd home/me; mv link link2; mv pipe pipe2; mv roots roots2; cat roots2; readlink link2",
    "removed in his directory": "rm -f home/me/roots2; rm -r home/me/theirs 2>/dev/null || rmdir home/other || echo no",
    "written, not his": "echo more >> srv/all; cat srv/all; getfattr -d srv/all",
    "of his group": "echo more >> srv/group/f; touch srv/group/new; mkdir srv/group/d; truncate -s 1 srv/group/f",
    "sticky": "touch tmp/mine; mkdir tmp/dir; (mv tmp/theirs tmp/stolen || touch tmp/theirs/x) 2>/dev/null || echo no",
    "not allowed": "for name in etc/passwd srv/all home; do chmod 777 $name 2>/dev/null || echo $name; done",
}  # fmt: skip
_LOOK = "find . -mindepth 1 -path ./home/other -prune -o -printf '%p %M %u %g %l\\n' | sort; cat home/me/f srv/all"


@pytest.fixture
def owner(area: Area, no_leaks: list[User]) -> User:
    made = area.new_user(PLAIN)
    no_leaks.append(made)
    return made


def everything(path: Path) -> list[str]:
    return sorted(f"{name} {name.lstat().st_uid} {oct(name.lstat().st_mode)}" for name in path.rglob("*"))


@pytest.mark.parametrize("engine", ENGINES)
def test_what_he_may_on_the_disk_he_may_in_the_view(owner: User, engine: str) -> None:
    for where in ("low", "plain"):
        (owner.temp / where).mkdir()
        subprocess.run(["sh", "-ec", _CONTENT, "sh", owner.name], cwd=owner.temp / where, check=True)
    overlay = Overlay(owner, owner.temp, engine)
    before = everything(owner.temp / "low")
    with overlay.mounted():
        for what, script in _SCRIPTS.items():
            script = f"({script})\n{_LOOK}"
            assert overlay.sh(script) == overlay.sh(script, where="plain"), what
    with overlay.mounted():
        assert overlay.sh(_LOOK) == overlay.sh(_LOOK, where="plain"), "after a remount"
    assert everything(owner.temp / "low") == before
    assert not [name for name in overlay.upper.rglob("*") if name.lstat().st_mode & 0o4000], (
        "no set-user-id file of his"
    )
    assert {name.lstat().st_uid for name in overlay.upper.rglob("*")} == {owner.uid}


def test_such_an_upper_is_a_lower_of_the_next(owner: User) -> None:
    (owner.temp / "low").mkdir()
    subprocess.run(["sh", "-ec", _CONTENT, "sh", owner.name], cwd=owner.temp / "low", check=True)
    first = Overlay(owner, owner.temp)
    with first.mounted():
        first.sh("; ".join(f"({script})" for script in _SCRIPTS.values()))
        seen = first.sh(_LOOK)
    owner.run(["mv", "up", "first"], cwd=owner.temp, check=True)
    second = Overlay(owner, owner.temp, lower="first:low")
    with second.mounted():
        assert second.sh(_LOOK) == seen
        second.sh("echo again >> srv/all; mv home/me/link2 home/me/link3")
        assert second.sh("readlink home/me/link3; stat -c '%U %a' srv/all") == "nowhere\nroot 766\n"
