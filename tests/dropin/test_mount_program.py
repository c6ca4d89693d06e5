"""`ufs-mount` called as mount(8) and container engines call it, and the owners that it shows and stores."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.mounts import fuse_mounts
from tests.support.users import User
from tests.support.waiting import wait_until
from unionfs.serve import ENGINES

pytestmark = pytest.mark.only_root
FUSE_SUPER_MAGIC = 0x65735546


@pytest.fixture
def place(root_user: User) -> Path:
    base = root_user.temp
    for name in ("lower/d", "up", "work", "merged"):
        (base / name).mkdir(parents=True)
    for name, owner in (
        ("lower", 1000),
        ("lower/d", 1000),
        ("lower/mine", 1000),
        ("lower/theirs", 100004),
        ("lower/far", 7),
    ):
        path = base / name
        if not path.exists():
            path.write_text(f"{name}\n")
        os.chown(path, owner, owner)
    return base


@contextmanager
def mounted(user: User, place: Path, *command: str, **kw: str) -> Iterator[Path]:
    done = user.run([*command, "merged"], cwd=place, env=kw or None, check=True)
    said = done.stderr.replace("unknown argument ignored: lazytime\n", "")  # fuse-overlayfs of its own options
    assert (done.stdout, said) == ("", "")
    try:
        yield place / "merged"
    finally:
        subprocess.run(["umount", place / "merged"], check=True)
        wait_until(lambda: not fuse_mounts([place / "merged"]), "the mount to go")


def options(*more: str) -> str:
    return ",".join(["lowerdir=lower", "upperdir=up", "workdir=work", *more])


def owner(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid


OURS = [["ufs-mount", "--engine", engine] for engine in ENGINES]
MAPS = "uidmapping=:1000:0:1:100000:1:65533,gidmapping=1000:0:1:100000:1:65533"


@pytest.mark.parametrize("command", OURS, ids=ENGINES)
def test_mapped_owners(root_user: User, place: Path, command: list[str]) -> None:
    with mounted(root_user, place, *command, "-o", options(MAPS)) as root:
        assert [owner(root / name) for name in ("mine", "theirs", "far")] == [(0, 0), (5, 5), (65534, 65534)]
        (root / "d/new").write_text("x")
        os.chown(root / "mine", 3, -1)
        with pytest.raises(OSError, match="Invalid argument"):
            os.chown(root / "theirs", 70000, 0)
        assert [owner(root / name) for name in ("mine", "d/new", "theirs")] == [(3, 0), (0, 0), (5, 5)]
        (root / "theirs").chmod(0o600)
    assert [owner(place / "up" / name) for name in ("mine", "d/new", "theirs")] == [
        (100002, 1000), (1000, 1000), (100004, 100004),
    ]  # fmt: skip


@pytest.mark.parametrize("command", [*OURS, ["fuse-overlayfs"]], ids=[*ENGINES, "fuse-overlayfs"])
@pytest.mark.parametrize("colon", ["", ":"])
def test_a_map_says_what_is_on_disk_and_then_what_is_shown(
    root_user: User, place: Path, command: list[str], colon: str
) -> None:
    """As fuse-overlayfs reads it: layers are stored with a container's ids, the mount shows the host's."""
    subprocess.run(["chown", "-R", "0:0", place / "lower"], check=True)
    os.chown(place / "lower/theirs", 5, 6)
    maps = f"uidmapping={colon}0:1000:1:1:100000:9,gidmapping={colon}0:2000:1:1:100000:9"
    with mounted(root_user, place, *command, "-o", options(maps)) as root:
        assert [owner(root / name) for name in ("d", "mine", "theirs")] == [(1000, 2000)] * 2 + [(100004, 100005)]
        done = subprocess.run(["mkdir", "d/made"], cwd=root, user=1000, group=2000, extra_groups=[])
        assert done.returncode == 0
        os.chown(root / "mine", 100000, 100001)
        assert [owner(root / name) for name in ("d/made", "mine")] == [(1000, 2000), (100000, 100001)]
    assert [owner(place / "up" / name) for name in ("d/made", "mine")] == [(0, 0), (1, 2)]


def test_mapped_owners_in_xattrs(root_user: User, place: Path) -> None:
    """What override_stat keeps are ids of the disk, too."""
    with mounted(root_user, place, "ufs-mount", "-o", options("xattr_permissions=2", MAPS)) as root:
        (root / "new").touch()
        os.chown(root / "theirs", 7, 8)
        assert [owner(root / name) for name in ("new", "theirs")] == [(0, 0), (7, 8)]
    kept = [os.getxattr(place / "up" / name, "user.containers.override_stat") for name in ("new", "theirs")]
    assert kept == [b"1000:1000:0644", b"100006:100007:0644"]


def test_what_is_shown_has_to_have_a_mapping_in_the_mounts_namespace(root_user: User, place: Path) -> None:
    """An inode with another id would be unusable for everybody."""
    os.chown(place / "lower/mine", 0, 0)
    script = """
        ufs-mount -o lowerdir=lower,uidmapping=0:1000:1,gidmapping=0:2000:1 merged
        stat -c %u:%g merged/mine merged/theirs; cat merged/mine; umount merged
    """
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", script]
    assert root_user.run(command, cwd=place, check=True).stdout == "0:0\n0:0\nlower/mine\n"


@pytest.mark.parametrize("named", [5, 65534])
def test_ids_in_acls_are_mapped_as_owners_are(root_user: User, place: Path, named: int) -> None:
    """The kernel refuses all access to a file with an ACL that has an id which it cannot map."""
    of_upper = {5: 100004, 65534: 12}[named]  # no range covers 12
    subprocess.run(["setfacl", "-m", f"u:{of_upper}:r,g:{of_upper}:rw", place / "lower/mine"], check=True)
    with mounted(root_user, place, "ufs-mount", "-o", options(MAPS)) as root:
        assert {f"user:{named}:r--", f"group:{named}:rw-"} <= acl_of(root / "mine")
        subprocess.run(["setfacl", "-m", "u:9:rwx", root / "mine"], check=named == 5)
        subprocess.run(["setfacl", "-m", "d:g:7:r", root / "d"], check=True)
        (root / "d/new").touch()
        assert "group:7:r--" in acl_of(root / "d/new")
    if named == 5:
        assert {"user:100004:r--", "user:100008:rwx", "group:100004:rw-"} <= acl_of(place / "up/mine")
    assert "group:100006:r--" in acl_of(place / "up/d/new")


def acl_of(path: Path) -> set[str]:
    command = ["getfacl", "--numeric", "--absolute-names", "--no-effective", path]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize(
    ("squash", "shown"),
    [("squash_to_root", (0, 0)), ("squash_to_uid=12,squash_to_gid=13", (12, 13)), ("squash_to_uid=12", (12, 0))],
)
def test_squashed_owners(root_user: User, place: Path, squash: str, shown: tuple[int, int]) -> None:
    with mounted(root_user, place, "ufs-mount", "-o", options(squash)) as root:
        (root / "new").write_text("x")
        os.chown(root / "mine", 55, 55)
        assert {owner(root / name) for name in ("", "mine", "theirs", "far", "new")} == {shown}


def test_owners_in_xattrs_are_what_others_read(root_user: User, place: Path) -> None:
    """What is written with xattr_permissions=2, as a lower layer of fuse-overlayfs (whose 1.10 knows no types)."""
    with mounted(root_user, place, "ufs-mount", "-o", options("xattr_permissions=2")) as root:
        (root / "new").write_text("x")
        os.chown(root / "new", 7, 8)
        os.chmod(root / "new", 0o4711)
        (root / "d/deep").mkdir(0o700)
        os.chown(root / "d/deep", 9, 9)
        (root / "d/deep/f").touch()
        os.chmod(root / "mine", 0o2755)
        os.chown(root / "theirs", 5, -1)
        (root / "far").unlink()
        written = listed(root)
    assert written["mine"] == (0o102755, 1000, 1000)
    with mounted(root_user, place, "fuse-overlayfs", "-o", "lowerdir=up") as root:
        assert listed(root) == written


def listed(root: Path) -> dict[str, tuple[int, int, int]]:
    found = {}
    for path in root.rglob("*"):
        info = path.lstat()
        found[str(path.relative_to(root))] = (info.st_mode, info.st_uid, info.st_gid)
    return found


def test_mount_with_a_type(root_user: User, place: Path) -> None:
    """mount(8) finds the program in the system's own directories alone: here in one of a private mount namespace."""
    script = f"""
        mount -t tmpfs none /usr/local/sbin; ln -s {root_user.command(["ufs-mount"])[0]} /usr/local/sbin/
        mount -t fuse.ufs-mount -o {options()} overlay merged
        cat merged/mine; stat -f -c %t merged; umount merged
    """
    done = root_user.run(["unshare", "--mount", "sh", "-ec", script], cwd=place, check=True)
    content, kind = done.stdout.splitlines()
    assert (content, int(kind, 16), done.stderr) == ("lower/mine", FUSE_SUPER_MAGIC, "")


def test_as_containerd_calls_it(root_user: User, place: Path) -> None:
    done = root_user.run(["ufs-mount", "overlay", "merged", "-o", options("dev", "suid", "")], cwd=place, check=True)
    assert done.stderr == ""
    assert (place / "merged/mine").exists()
    subprocess.run(["umount", place / "merged"], check=True)


def test_help_names_every_option(root_user: User) -> None:
    from unionfs import options

    said = root_user.run(["ufs-mount", "--help"], check=True).stdout
    names = options.FLAGS | options.VALUES | options.IGNORED
    assert [name for name in names if not re.search(rf"\b{name}\b", said)] == []
