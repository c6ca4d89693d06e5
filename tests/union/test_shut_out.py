"""An ordinary user changes what its mode shuts him out of, as an owner may on a disk; the server has no more rights."""

from __future__ import annotations

import pytest

from tests.support.area import Area
from tests.support.overlay import Overlay
from tests.support.users import PLAIN, User
from unionfs.serve import ENGINES

pytestmark = pytest.mark.only_root  # acts as another user

_CONTENT = """
    umask 022
    mkdir -p git ro/in shut ro/shut twice
    for file in git/a git/b git/c git/d git/e ro/f ro/in/f shut/f ro/shut/f twice/f; do echo $file > $file; done
    head -c 1500000 /dev/zero > ro/big; ln -s f ro/link; mkfifo ro/pipe
    ln git/e git/e2
    setfattr -n user.kept -v yes ro/in
    chmod 444 git/* ro/f ro/big ro/in/f shut/f; chmod 555 ro/in ro twice; chmod 0 shut ro/shut
"""
_SCRIPTS = {
    "a file that may not be written": """
        chmod 406 git/a; chmod u+w git/b; echo more >> git/b; touch -d @5 git/c; cat git/b
    """,
    "renamed": "mv git/d git/moved; chmod 600 git/moved; echo more >> git/moved; cat git/moved",
    "of several names": "chmod 400 git/e; chmod 644 git/e2; echo more >> git/e; cat git/e2",
    "in a directory that may not be written": """
        chmod 604 ro/f; touch -d @7 ro/in/f; chmod 640 ro/in/f; echo more > ro/in/f; cat ro/in/f
        touch -hd @9 ro/link; chmod 600 ro/pipe; chmod 644 ro/big; echo end >> ro/big; wc -c < ro/big
        (rm -f ro/in/f || touch ro/new) 2>/dev/null || echo refused
        mv twice once; mv once thrice; chmod u+w thrice; rm thrice/f; echo new > thrice/new; ls thrice
    """,
    "a directory that nobody may enter": """
        chmod 700 shut; stat -c %a shut; chmod 0 shut; mv shut shut2; rmdir ro/shut 2>/dev/null || echo refused
        mkdir new; echo f > new/f; mkdir new/d
        exec 3< new/f 4< new/d; chmod 0 new; chmod 444 /proc/self/fd/3; chmod 500 /proc/self/fd/4; mv new newer
        chmod 755 newer; stat -c '%a %n' newer/f newer/d; chmod 700 newer/d; mv newer/d moved
    """,
    "removed": "chmod 777 ro ro/in; mv ro/in in; chmod 555 in; chmod u+w in; rm -rf in ro/f; ls",
}  # fmt: skip
_LOOK = """
    find . -path './*shut*' -prune -o -type d -printf '%p %M\\n' -o -printf '%p %M %n %l\\n' | sort
    stat -c '%a %n' *; test ! -d ro/in || getfattr -d ro/in
"""


@pytest.fixture
def owner(area: Area, no_leaks: list[User]) -> User:
    made = area.new_user(PLAIN)
    no_leaks.append(made)
    return made


@pytest.mark.parametrize("engine", ENGINES)
def test_the_owner_may_what_he_may_on_a_disk(owner: User, engine: str) -> None:
    overlay = Overlay(owner, owner.temp, engine)
    for where in ("low", "plain"):
        overlay.sh(f"mkdir -p {where}; cd {where}; {_CONTENT}", where=".")
    with overlay.mounted():
        for what, script in _SCRIPTS.items():
            script += "\n" + _LOOK
            assert overlay.sh(script) == overlay.sh(script, where="plain"), what
    with overlay.mounted():
        assert overlay.sh(_LOOK) == overlay.sh(_LOOK, where="plain")
    for name in ("git/a", "git/moved"):
        assert overlay.sh(f"getfattr -m user.ufs.origin {name}", where="up"), "the mark that keeps st_ino"
