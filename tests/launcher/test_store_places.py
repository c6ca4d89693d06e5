"""The store on file systems that are no plain disk: containers run there, or are refused with what to do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.images import Images
from tests.support.foreign import foreign
from tests.support.mounts import fuse_mounts
from tests.support.users import User
from tests.support.waiting import wait_until
from unionfs import syscalls

pytestmark = pytest.mark.only_root

NOEXEC, NODEV, NOSUID = 8, 4, 2


@contextmanager
def _tmpfs(base: Path) -> Iterator[Path]:
    base.mkdir()
    syscalls.mount(b"tmpfs", os.fsencode(base), b"tmpfs", NOEXEC | NODEV | NOSUID, b"")
    try:
        yield base
    finally:
        syscalls.umount2(os.fsencode(base))


@contextmanager
def _overlay(base: Path, user: User, program: str, options: str = "") -> Iterator[Path]:
    for name in ("lower", "upper", "work", "merged"):
        (base / name).mkdir(parents=True)
    directories = f"lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work{options}"
    user.run([program, "-o", directories, base / "merged"], check=True)
    try:
        yield base / "merged"
    finally:
        syscalls.umount2(os.fsencode(base / "merged"))
        wait_until(lambda: not fuse_mounts([base]), "the mount to go")


@contextmanager
def _place(kind: str, base: Path, user: User) -> Iterator[Path]:
    if kind == "tmpfs":
        made = _tmpfs(base)
    elif kind in ("bindfs", "plain-bindfs", "sshfs"):
        made = foreign(kind, base)
    elif kind == "fuse-overlayfs":
        made = _overlay(base, user, "fuse-overlayfs")
    else:
        made = _overlay(base, user, "ufs-mount", ",noxattrs=1" if kind == "ufs-noxattrs" else "")
    with made as place:
        yield place


SCRIPT = "echo new > /f; rm /etc/passwd; mkdir /d; rmdir /d; mv /usr /other; ls -d /other; cat /f"


@pytest.mark.parametrize("kind", ["tmpfs", "bindfs", "plain-bindfs", "ufs", "ufs-noxattrs"])
def test_containers_run(root_user: User, images: Images, tmp_path: Path, kind: str) -> None:
    with _place(kind, tmp_path / "place", root_user) as place:
        env = {"UFS_ROOT": str(place / "store")}
        root_user.run(["ufs", "load", "-i", images.path("busybox", "docker.tar")], check=True, env=env)
        for command in (["ufs-run", "--rm", "busybox"], ["ufs-run", "--name", "kept", "busybox"]):
            done = root_user.run([*command, "sh", "-ec", SCRIPT], env=env)
            assert (done.returncode, done.stdout, done.stderr) == (0, "/other\nnew\n", "")
        assert "A /f\n" in root_user.run(["ufs", "diff", "kept"], check=True, env=env).stdout
        assert root_user.run(["ufs", "rm", "kept"], check=True, env=env).stderr == ""


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (
            "fuse-overlayfs",
            "no form of whiteout can be kept there, as on another overlay; name an upper and a work directory",
        ),
        ("sshfs", "no socket can be made here (Operation not permitted), which a container needs; set UFS_ROOT to"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(
    root_user: User, images: Images, tmp_path: Path, kind: str, said: str
) -> None:
    with _place(kind, tmp_path / "place", root_user) as place:
        env = {"UFS_ROOT": str(place / "store")}
        root_user.run(["ufs", "load", "-i", images.path("busybox", "docker.tar")], check=True, env=env)
        done = root_user.run(["ufs-run", "busybox", "true"], env=env)
        assert done.returncode == 125
        assert said in done.stderr
