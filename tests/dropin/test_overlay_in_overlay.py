"""Overlays in overlays: a mount of ours as upper and as lower of our own, of fuse-overlayfs and of the kernel's.

The inner one is the judge: it shows on our mount what it shows on a disk.
"""

from __future__ import annotations

import pytest

from tests.support.area import Area
from tests.support.overlay import Overlay
from tests.support.users import PLAIN, ROOT, User

pytestmark = pytest.mark.real_root

_LOWERS = """
    mkdir -p a/d/e a/x b/d; echo f > a/d/f; echo g > a/d/e/g; echo x > a/x/y; echo i > b/d/i
    mkdir -p low plain/up plain/work inner
"""
_INNER = {
    "ours": "ufs-mount -o lowerdir=b:a,upperdir=$1/up,workdir=$1/work inner",
    "fuse-overlayfs": "fuse-overlayfs -o lowerdir=b:a,upperdir=$1/up,workdir=$1/work inner 2>/dev/null",
    "kernel": "mount -t overlay overlay -o lowerdir=b:a,upperdir=$1/up,workdir=$1/work$2 inner",
}
_CHANGES = """
    echo new > n; rm d/f; mkdir d/f; rm -r x; mkdir x; echo in > x/in; mv d dd; echo more >> dd/e/g; ln n n2; ln -s n s
    rm dd/e/g; mv dd/e dd/ee; mkfifo p; touch dd/ee/h; mkdir dd/ee/g; rmdir dd/ee/g; echo i >> dd/i
"""
_LOOK = "find . -type d -printf '%p %M\\n' -o -printf '%p %M %n %s %l\\n' | sort; cat n2 dd/i x/in"


@pytest.fixture(params=[ROOT, PLAIN])
def someone(request: pytest.FixtureRequest, area: Area, no_leaks: list[User]) -> User:
    made = area.new_user(request.param)
    no_leaks.append(made)
    return made


@pytest.mark.parametrize("inner", _INNER)
def test_our_mount_as_an_upper(someone: User, inner: str) -> None:
    """In a user namespace for who is not root, as engines are started."""
    outer = Overlay(someone, someone.temp)
    outer.sh(_LOWERS, where=".")
    (someone.temp / "inner.sh").write_text(
        f"set -e; {_INNER[inner]}; (cd inner; if test $3; then {_CHANGES} fi; {_LOOK}); umount inner\n"
    )
    userxattr = ",userxattr" if someone.kind != ROOT else ""
    enter = "unshare --mount" if someone.kind == ROOT else "unshare --map-root-user --mount"

    def run(where: str, change: str = "") -> str:
        return outer.sh(f"{enter} bash inner.sh {where} '{userxattr}' {change}", where=".")

    right = run("plain", "changes")
    with outer.mounted():
        outer.sh("mkdir up work")
        assert run("merged", "changes") == right
    with outer.mounted():
        assert run("merged") == right, "after both were mounted anew"
    assert "./dd/ee/h -rw-r--r-- 1 0" in right


@pytest.mark.only_root
def test_our_mount_as_a_lower(root_user: User) -> None:
    """Marks that a program sets in it are none to us, and are what it meant to the overlay above."""
    outer = Overlay(root_user, root_user.temp, lower="a")
    outer.sh(_LOWERS, where=".")
    with outer.mounted():
        outer.sh("setfattr -n trusted.overlay.opaque -v y d; setfattr -n user.overlay.opaque -v y d; mknod x/y2 c 0 0")
        assert outer.sh("ls d") == "e\nf\n"
        for options in (",userxattr", ""):
            lower = f"lowerdir=merged:b,upperdir=plain/up,workdir=plain/work{options}"
            script = f"mount -t overlay overlay -o {lower} inner; ls inner/d; test ! -e inner/x/y2; umount inner"
            assert outer.sh(f"unshare --mount bash -ec '{script}'; rm -r plain/work/*", where=".") == "e\nf\n"


@pytest.mark.only_root
def test_an_upper_on_another_overlay(root_user: User) -> None:
    """The kernel's can be one; fuse-overlayfs takes our whiteouts for its own, so it cannot."""
    outer = Overlay(root_user, root_user.temp)
    outer.sh(_LOWERS, where=".")
    ours = _INNER["ours"].replace("$1", "merged")
    below = "-o lowerdir=low,upperdir=plain/up,workdir=plain/work merged; mkdir merged/up merged/work"
    (root_user.temp / "kernel.sh").write_text(f"""
        set -e; mount -t overlay overlay {below}
        {ours}; (cd inner; {_CHANGES} {_LOOK}) >once; umount inner
        {ours}; (cd inner; {_LOOK}) >again; umount inner; cat once
    """)
    assert "./dd/ee/h -rw-r--r-- 1 0 " in outer.sh("unshare --mount bash kernel.sh; cmp once again", where=".")
    outer.sh("rm -rf plain; mkdir -p plain/up plain/work", where=".")
    (root_user.temp / "theirs.sh").write_text(f"fuse-overlayfs {below} 2>&1; {ours}; umount merged")
    said = outer.sh("unshare --mount bash theirs.sh", where=".")
    assert "merged/work: no form of whiteout can be kept there" in said
