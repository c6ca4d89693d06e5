"""What a server gets from whoever started it: it keeps none of it, so nobody who waits for that waits for the mount."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.images import Images
from tests.support.mounts import fuse_mounts
from tests.support.users import ROOT, User
from tests.support.waiting import wait_until

COMMANDS = pytest.mark.parametrize("command", ["ufs-mount", "ufs-mount -f", "ufs mount"])


def mounting(command: str, user: User, images: Images) -> list[str]:
    """What mounts something on "merged"."""
    user.run(["mkdir", "lower", "up", "work", "merged"], cwd=user.temp, check=True)
    if command == "ufs mount":
        return ["ufs", "mount", str(images.path("busybox", "docker.tar")), "merged"]
    return [*command.split(), "-o", "lowerdir=lower,upperdir=up,workdir=work", "merged"]


def unmount(user: User) -> None:
    target = user.temp / "merged"
    user.run(["umount", target] if user.kind == ROOT else ["fusermount3", "-u", target], check=True)
    wait_until(lambda: not fuse_mounts([target]), f"{target} to be unmounted")


@COMMANDS
def test_descriptors_of_the_caller_are_closed(user: User, images: Images, command: str) -> None:
    reading, writing = os.pipe()
    with user.popen(
        mounting(command, user, images), cwd=user.temp, pass_fds=[writing], stderr=subprocess.PIPE
    ) as process:
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            wait_until(lambda: fuse_mounts([user.temp]), "the mount")
            assert pipe.read() == b""  # it ends while the mount lives
        assert fuse_mounts([user.temp])
        unmount(user)
        assert process.stderr.read() == b""


@pytest.mark.only_root
@COMMANDS
@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_closed_standard_streams(root_user: User, images: Images, command: str, closed: str) -> None:
    user, words = root_user, root_user.command(mounting(command, root_user, images))
    with user.popen(["sh", "-c", f'exec "$@" {closed}', "sh", *words], cwd=user.temp) as process:
        wait_until(lambda: fuse_mounts([user.temp]), "the mount")
        if "-f" not in words:
            assert process.wait(30) == 0
        assert user.run(["ls", "merged"], cwd=user.temp, check=True).stderr == ""
        unmount(user)
        assert process.wait(30) == 0


@pytest.mark.only_root
def test_make_ends_while_the_mounts_it_made_live(root_user: User) -> None:
    """Its jobserver is a pipe, and with -O what a job prints goes to a file that is locked."""
    place = root_user.temp
    mount = root_user.command(["ufs-mount"])[0]
    (place / "Makefile").write_text(f"all: a b\na b:\n\t+mkdir $@ $@.m; {mount} -o lowerdir=$@ $@.m; echo made $@\n")
    done = root_user.run(["sh", "-c", "make -s -j4 -O | sort"], cwd=place, check=True, timeout=60)
    assert done.stdout.split() == ["made", "a", "made", "b"]
    for name in ("a.m", "b.m"):
        root_user.run(["umount", place / name], check=True)
