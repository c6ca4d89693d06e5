"""`ufs-mount` as its users call it: all kinds of them, both engines, right and wrong input."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from tests.support.mounts import fuse_mounts
from tests.support.users import ROOT, User
from tests.support.waiting import wait_until
from unionfs import syscalls
from unionfs.serve import ENGINES


@pytest.fixture
def layers(user: User) -> Path:
    """Two lower directories, an upper, a work directory and a target below the user's temporary directory."""
    base = user.temp
    script = """
        mkdir -p top/etc bottom/etc/old up work merged
        echo top > top/etc/motd; echo bottom > bottom/etc/motd; echo deep > bottom/etc/old/file
        echo gone > bottom/etc/gone; ln -s motd bottom/etc/link
    """
    user.run(["sh", "-ec", script], check=True, cwd=base)
    return base


def unmount(user: User, target: Path) -> None:
    user.run(["umount", target] if user.kind == ROOT else ["fusermount3", "-u", target], check=True)
    wait_until(lambda: not fuse_mounts([target]), f"{target} to be unmounted")


@pytest.mark.parametrize("engine", ENGINES)
def test_changes_go_to_the_upper_and_survive_a_remount(user: User, layers: Path, engine: str) -> None:
    # A user's mount is closed even to root, who cannot start a command in it: so each script enters it itself.
    options = "lowerdir=top:bottom,upperdir=up,workdir=work"
    merged = layers / "merged"
    mount = ["ufs-mount", "--engine", engine, "-o", options, "merged"]
    user.run(mount, check=True, cwd=layers)
    try:
        script = "cd merged; cat etc/motd; rm etc/gone; echo more >> etc/motd; mv etc/old etc/new"
        script += "; chmod 600 etc/new/file"
        assert user.run(["sh", "-ec", script], check=True, cwd=layers).stdout == "top\n"
    finally:
        unmount(user, merged)
    assert (layers / "top/etc/motd").read_text() == "top\n"
    assert (layers / "bottom/etc/gone").exists()
    user.run(mount, check=True, cwd=layers)
    try:
        script = "cd merged; cat etc/motd etc/link; ls etc; cat etc/new/file"
        seen = user.run(["sh", "-ec", script], check=True, cwd=layers)
        assert seen.stdout == "top\nmore\ntop\nmore\nlink\nmotd\nnew\ndeep\n"
    finally:
        unmount(user, merged)
    assert not os.listdir(layers / "work/work")


@pytest.mark.parametrize("engine", ENGINES)
def test_without_an_upper_nothing_can_be_changed(user: User, layers: Path, engine: str) -> None:
    user.run(["ufs-mount", "--engine", engine, "-o", "lowerdir=top:bottom", "merged"], check=True, cwd=layers)
    try:
        for change in ("touch etc/new", "rm etc/motd", "mkdir dir", "chmod 700 etc", "mv etc etc2"):
            done = user.run(["sh", "-c", f"cd merged; {change}"], cwd=layers)
            assert done.returncode != 0
            assert "Read-only file system" in done.stderr
    finally:
        unmount(user, layers / "merged")


ODD = ["with space", "a:b", "c,d", "back\\slash", 'quo"te', '"quoted"', "new\nline", "end\\", "\udcff"]


@pytest.mark.parametrize("odd", ODD, ids=ascii)
def test_directories_with_odd_names(user: User, layers: Path, odd: str) -> None:
    for role in ("top", "up", "work", "merged"):
        os.rename(layers / role, layers / (role + odd))
    top, up, work = (re.sub(r'[\\:,"]', r"\\\g<0>", role + odd) for role in ("top", "up", "work"))
    target = "merged" + odd
    user.run(["ufs-mount", "-o", f"lowerdir={top}:bottom,upperdir={up},workdir={work}", target], check=True, cwd=layers)
    try:
        assert user.run(["sh", "-c", 'cd "$0"; cat etc/motd; echo x > new', target], cwd=layers).stdout == "top\n"
    finally:
        unmount(user, layers / target)
    assert (layers / ("up" + odd) / "new").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_server_unmounts_on_signals(user: User, layers: Path, number: int) -> None:
    with user.popen(["ufs-mount", "-f", "-o", "lowerdir=top:bottom", "merged"], cwd=layers) as server:
        wait_until(lambda: fuse_mounts([layers / "merged"]), "the mount")
        server.send_signal(number)
        assert server.wait(10) == 0
    assert not fuse_mounts([layers / "merged"])


FILE = "top/etc/motd"
MAKE, NAME = "make it (mkdir -p), or correct its name", "name a directory instead"
ENTER = "this user needs to read and enter it and to enter all above it (chmod, or another user)"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-o", "lowerdir=top:nowhere", "merged"], f"/nowhere: No such file or directory (lowerdir); {MAKE}"),
        (["-o", f"lowerdir={FILE}", "merged"], f"/{FILE}: Not a directory (lowerdir); {NAME}"),
        (["-o", "lowerdir=top", "nowhere"], f"/nowhere: No such file or directory (mount point); {MAKE}"),
        (["-o", "lowerdir=top", FILE], f"/{FILE}: Not a directory (mount point); {NAME}"),
        (["-o", "lowerdir=top", f"{FILE}/more"], f"/{FILE}/more: Not a directory (mount point); {NAME}"),
        (
            ["-o", "lowerdir=top,upperdir=nowhere,workdir=work", "merged"],
            f"nowhere: No such file or directory (upperdir); {MAKE}",
        ),
        (["-o", f"lowerdir=top,upperdir={FILE},workdir=work", "merged"], f"{FILE}: Not a directory (upperdir); {NAME}"),
        (["-o", f"lowerdir=top,upperdir=up,workdir={FILE}", "merged"], f"{FILE}: Not a directory (workdir); {NAME}"),
        (["-o", "lowerdir=top,upperdir=up", "merged"], "workdir is missing"),
        (
            ["-o", "lowerdir=top,upperdir=up,workdir=nowhere", "merged"],
            f"nowhere: No such file or directory (workdir); {MAKE}",
        ),
        (["-o", "", "merged"], "there is no lowerdir"),
        (["-o", "lowerdir=top", ""], "mount point: the name is empty; name a directory"),
        (["-o", "lowerdir=top,upperdir=,workdir=work", "merged"], "upperdir: the name is empty; name a directory"),
        (["-o", "lowerdir=top,upperdir=up,workdir=", "merged"], "workdir: the name is empty; name a directory"),
    ],
)
def test_wrong_input_is_one_line_and_mounts_nothing(user: User, layers: Path, arguments: list[str], said: str) -> None:
    done = user.run(["ufs-mount", *arguments], cwd=layers)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not fuse_mounts([layers])


@pytest.mark.parametrize("arguments", [[], ["--nope", "merged"], ["a", "b", "c"], ["-o"]])
def test_a_wrong_command_line_is_one_line(user: User, layers: Path, arguments: list[str]) -> None:
    done = user.run(["ufs-mount", *arguments], cwd=layers)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("ufs-mount: ")
    assert done.stderr.endswith("(see ufs-mount --help)\n")


@pytest.mark.parametrize("role", ["lowerdir", "upperdir", "workdir", "mount point"])
def test_a_directory_that_may_not_be_entered(user: User, layers: Path, role: str) -> None:
    closed = layers / "closed"
    (closed / "in").mkdir(parents=True)
    user.own(closed)
    closed.chmod(0)
    named = {"lowerdir": "top", "upperdir": "up", "workdir": "work", "mount point": "merged", role: f"{closed}/in"}
    target = named.pop("mount point")
    done = user.run(["ufs-mount", "-o", ",".join(f"{key}={value}" for key, value in named.items()), target], cwd=layers)
    if user.kind == ROOT:  # who may enter all
        assert (done.returncode, done.stderr) == (0, "")
        unmount(user, layers / target)
        return
    closed.chmod(0o700)
    assert done.returncode == 1
    assert done.stderr == f"ufs-mount: {closed}/in: Permission denied ({role}); {ENTER}\n"


def test_a_lower_directory_that_may_be_entered_but_not_listed(user: User, layers: Path) -> None:
    (layers / "top").chmod(0o111)
    user.run(["ufs-mount", "-o", "lowerdir=top", "merged"], check=True, cwd=layers)
    try:
        assert user.run(["cat", "merged/etc/motd"], check=True, cwd=layers).stdout == "top\n"
    finally:
        unmount(user, layers / "merged")


def test_a_work_directory_that_may_not_be_written(user: User, layers: Path) -> None:
    (layers / "work").chmod(0o500)
    done = user.run(["ufs-mount", "-o", "lowerdir=top,upperdir=up,workdir=work", "merged"], cwd=layers)
    if user.kind == ROOT:
        assert (done.returncode, done.stderr) == (0, "")
        unmount(user, layers / "merged")
        return
    assert done.returncode == 1
    assert done.stderr == "ufs-mount: work: Permission denied (workdir); this user needs to write in it\n"


def test_a_mount_point_whose_server_has_ended_is_told(user: User, layers: Path) -> None:
    with user.popen(["ufs-mount", "-f", "-o", "lowerdir=top", "merged"], cwd=layers) as server:
        wait_until(lambda: fuse_mounts([layers / "merged"]), "the mount")
        server.kill()
    try:
        done = user.run(["ufs-mount", "-o", "lowerdir=bottom", "merged"], cwd=layers)
        assert done.returncode == 1
        assert "Transport endpoint is not connected (mount point); it is a mount whose server has ended" in done.stderr
        assert done.stderr.count("\n") == 1
    finally:
        unmount(user, layers / "merged")


def test_root_of_a_container_that_may_not_mount_is_told(root_user: User, layers: Path) -> None:
    command = root_user.command(["ufs-mount", "-o", f"lowerdir={layers}/top", layers / "merged"])
    done = root_user.run(["setpriv", "--bounding-set=-sys_admin", *command])
    assert (done.returncode, done.stderr.count("\n"), "unshare -Urm" in done.stderr) == (1, 1, True), done


def test_a_work_directory_serves_one_mount_at_a_time(user: User, layers: Path) -> None:
    mount = ["ufs-mount", "-o", "lowerdir=top,upperdir=up,workdir=work", "merged"]
    user.run(mount, check=True, cwd=layers)
    try:
        (layers / "second").mkdir()
        user.own(layers / "second")
        done = user.run([*mount[:-1], "second"], cwd=layers)
        assert done.returncode == 1
        assert "in use by another mount" in done.stderr
    finally:
        unmount(user, layers / "merged")


@pytest.mark.only_root
def test_a_work_directory_that_nothing_can_be_moved_from_is_refused(user: User, layers: Path) -> None:
    """Each is a bind mount of its own, so rename(2) is EXDEV although both are on one file system."""
    up, work = layers / "up", layers / "work"
    for path in (up, work):
        syscalls.mount(os.fsencode(path), os.fsencode(path), b"", syscalls.MS_BIND, b"")
    try:
        options = f"lowerdir={layers}/top,upperdir={up},workdir={work}"
        done = user.run(["ufs-mount", "-o", options, layers / "merged"])
        assert done.returncode == 1
        assert done.stderr == (
            f"ufs-mount: {work}: nothing can be moved from the work directory to the upper directory; name one that is"
            " on the same mount of the same file system, best beside the upper directory\n"
        )
        assert not os.listdir(up)
        assert not fuse_mounts([layers])
    finally:
        for path in (up, work):
            syscalls.umount2(os.fsencode(path))
