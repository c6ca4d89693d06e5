"""What `-o` of `ufs-mount` switches on and off besides the kernel's own flags."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.mounts import fuse_mounts
from tests.support.systems import raises
from tests.support.users import PLAIN, User, account
from tests.support.waiting import wait_until
from unionfs.serve import ENGINES

pytestmark = pytest.mark.only_root
LAYERS = "lowerdir=lower,upperdir=up,workdir=work"


@pytest.fixture
def place(root_user: User) -> Path:
    script = """
        mkdir -p lower/d/deep lower/empty up work merged; echo x >lower/f; echo y >lower/d/g
        setfattr -n user.x -v y lower/f; setfacl -m u:7:r lower/f
    """
    root_user.run(["sh", "-ec", script], cwd=root_user.temp, check=True)
    return root_user.temp


@contextmanager
def mounted(user: User, place: Path, options: str, engine: str = "direct") -> Iterator[Path]:
    done = user.run(["ufs-mount", "--engine", engine, "-o", f"{LAYERS},{options}", "merged"], cwd=place, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    try:
        yield place / "merged"
    finally:
        subprocess.run(["umount", place / "merged"], check=True)
        wait_until(lambda: not fuse_mounts([place / "merged"]), "the mount to go")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("option", ["noxattrs=1", "noxattrs"])
def test_no_xattrs(root_user: User, place: Path, engine: str, option: str) -> None:
    with mounted(root_user, place, option, engine) as root:
        (root / "new").touch()
        for path in (root / "f", root / "new", root / "d"):
            for _ in range(2):  # asked once, the kernel answers by itself
                with raises(errno.EOPNOTSUPP):
                    os.getxattr(path, "user.x")
                with raises(errno.EOPNOTSUPP):
                    os.listxattr(path)
                with raises(errno.EOPNOTSUPP):
                    os.setxattr(path, "user.x", b"z")
                with raises(errno.EOPNOTSUPP):
                    os.removexattr(path, "user.x")
        (root / "f").chmod(0o604)
        (root / "f").write_text("changed")
    assert (place / "up/f").read_text() == "changed"
    with mounted(root_user, place, "noxattrs=0", engine) as root:
        assert os.getxattr(root / "f", "user.x") == b"y"


def test_no_acls(root_user: User, place: Path) -> None:
    name = "system.posix_acl_access"
    with mounted(root_user, place, "noacl") as root:
        assert os.listxattr(root / "f") == ["user.x"]
        for change in (lambda: os.getxattr(root / "f", name), lambda: os.setxattr(root / "f", name, b"")):
            with raises(errno.EOPNOTSUPP):
                change()
    with mounted(root_user, place, "rw") as root:
        assert name in os.listxattr(root / "f")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("word", ["off", "follow"])
def test_no_redirects(root_user: User, place: Path, engine: str, word: str) -> None:
    with mounted(root_user, place, f"redirect_dir={word}", engine) as root:
        (root / "new").mkdir()
        (root / "new").rename(root / "newer")
        (root / "empty/in").touch()  # in the upper now, merged with the lower one
        for name in ("d", "empty"):
            with raises(errno.EXDEV):
                (root / name).rename(root / "other")
        subprocess.run(["mv", root / "d", root / "moved"], check=True)
        (root / "f").rename(root / "newer/f")
        (root / "moved").rename(root / "again")
        assert (root / "again/g").read_text() == "y\n"
    marked = [path for path in (place / "up").rglob("*") if "user.overlay.redirect" in names_of(path)]
    assert not marked
    with mounted(root_user, place, "redirect_dir=on", engine) as root:
        (root / "empty").rename(root / "full")
    with mounted(root_user, place, "redirect_dir=off", engine) as root:
        assert (root / "full/in").exists()


def names_of(path: Path) -> list[str]:
    return os.listxattr(path, follow_symlinks=False)


@pytest.mark.parametrize("option", ["fsync=0", "sync=0", "volatile", "fsync=1", "sync=1"])
def test_whether_fsync_does_something(root_user: User, place: Path, option: str) -> None:
    """Where it has nothing to do the kernel asks once, and an end of the server is not noticed by it."""
    with mounted(root_user, place, option) as root:
        fd = os.open(root / "new", os.O_RDWR | os.O_CREAT)
        os.fsync(fd)
        connection = Path(f"/sys/fs/fuse/connections/{os.minor(root.stat().st_dev)}/abort")
        subprocess.run(["mount", "-t", "fusectl", "none", "/sys/fs/fuse/connections"], check=True)
        connection.write_text("1")
        subprocess.run(["umount", "/sys/fs/fuse/connections"], check=True)
        try:
            if option.endswith("1"):
                with raises(errno.ENOTCONN):
                    os.fsync(fd)
            else:
                os.fsync(fd)
        finally:
            os.close(fd)


def test_allow_root_lets_nobody_else_in(root_user: User, place: Path) -> None:
    for above in (place, place.parent):
        above.chmod(0o755)
    nobody = account(PLAIN).pw_uid
    command = ["cat", place / "merged/f"]
    for options, expected in (("rw", 0), ("allow_root", 1)):
        with mounted(root_user, place, options):
            assert subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
            done = subprocess.run(command, user=nobody, extra_groups=[], capture_output=True)
            assert done.returncode == expected


def test_private_keeps_other_namespaces_out(root_user: User, place: Path) -> None:
    script = """
        mount --make-rshared /; ufs-mount -o {options} merged
        findmnt -n -o PROPAGATION merged; umount merged
    """
    for option, expected in (("rw", "shared"), ("private", "private")):
        command = ["unshare", "--mount", "sh", "-ec", script.format(options=f"{LAYERS},{option}")]
        assert root_user.run(command, cwd=place, check=True).stdout.split() == [expected]
