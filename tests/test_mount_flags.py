"""The options that mount(8) has for every file system: in force, and in /proc/mounts as for every other one."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.mounts import fuse_mounts
from tests.support.systems import opened, raises
from tests.support.users import PLAIN, ROOT, User, account
from tests.support.waiting import wait_until
from unionfs.mountflags import NAMES

LAYERS = "lowerdir=lower,upperdir=up,workdir=work"
OF_MOUNT8 = ["nodiratime", "nosymfollow", "lazytime", "strictatime"]
"""What fusermount3 has no word for."""


def layers(user: User) -> Path:
    user.run(["sh", "-ec", "mkdir -p lower/d up work merged; echo x >lower/f"], cwd=user.temp, check=True)
    return user.temp


@contextmanager
def mounted(user: User, place: Path, *command: str) -> Iterator[Path]:
    done = user.run(["ufs-mount", *command, "merged"], cwd=place, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    try:
        yield place / "merged"
    finally:
        user.run(["umount", "merged"] if user.kind == ROOT else ["fusermount3", "-u", "merged"], cwd=place, check=True)
        wait_until(lambda: not fuse_mounts([place / "merged"]), "the mount to go")


def shown(target: Path) -> tuple[str, str, set[str]]:
    """Device, type and options in /proc/mounts."""
    for line in Path("/proc/mounts").read_text().splitlines():
        source, path, kind, options, *_ = line.split(" ")
        if path == str(target):
            return source, kind, set(options.split(","))
    raise AssertionError(f"{target} is not mounted")


def test_flags_are_in_proc_mounts(user: User) -> None:
    place = layers(user)
    wanted = {"nosuid", "nodev", "noexec", "sync", "dirsync", "noatime", "ro"}
    wanted |= set(OF_MOUNT8[:-1]) if user.kind == ROOT else set()
    with mounted(user, place, "-o", ",".join([LAYERS, *wanted])) as target:
        assert wanted - shown(target)[2] == set()
    with mounted(user, place, "-o", LAYERS) as target:
        unasked = shown(target)[2] & {name for name in NAMES if name.startswith("no")}
        assert unasked == (set() if user.kind == ROOT else {"nosuid", "nodev"})
    with mounted(user, place, "-o", f"{LAYERS},ro,noexec,noatime,rw,exec,relatime") as target:
        assert {"rw", "relatime"} <= shown(target)[2]
        assert not {"noexec", "noatime"} & shown(target)[2]


def test_what_only_root_may_have_is_told(user: User) -> None:
    place = layers(user)
    asked = ["suid", "dev", *OF_MOUNT8, "private", "allow_root"]
    done = user.run(["ufs-mount", "-o", ",".join([LAYERS, *asked]), "merged"], cwd=place, check=True)
    user.run(["umount", "merged"] if user.kind == ROOT else ["fusermount3", "-u", "merged"], cwd=place, check=True)
    told = {line.split("'")[1] for line in done.stderr.splitlines()}
    assert told == (set() if user.kind == ROOT else set(asked))


@pytest.mark.only_root
@pytest.mark.parametrize(
    ("flags", "runs", "gains"), [("suid", True, True), ("nosuid", True, False), ("user", False, False)]
)
def test_a_set_user_id_program(root_user: User, flags: str, runs: bool, gains: bool) -> None:
    place, nobody = layers(root_user), account(PLAIN)
    for above in (place, place.parent):
        above.chmod(0o755)
    shutil.copy("/usr/bin/id", place / "lower/id")
    (place / "lower/id").chmod(0o4755)
    with mounted(root_user, place, "-o", f"{LAYERS},{flags}") as target:
        command = [
            "setpriv",
            f"--reuid={nobody.pw_uid}",
            f"--regid={nobody.pw_gid}",
            "--clear-groups",
            "--",
            target / "id",
            "-u",
        ]
        done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode == 0) == runs
    assert done.stdout.strip() == ("" if not runs else "0" if gains else str(nobody.pw_uid))


def test_the_device_and_the_type_that_show(user: User) -> None:
    place = layers(user)
    for options, before, expected in [
        ("", [], ("ufs", "fuse.ufs-mount")),
        ("", ["overlay"], ("overlay", "fuse.ufs-mount")),
        (",fsname=one,subtype=mine", ["overlay"], ("one", "fuse.mine")),
        (r",fsname=a\,b c", [], (r"a,b\040c", "fuse.ufs-mount")),
        (",fsname=,subtype=", [], ("ufs", "fuse.ufs-mount")),
    ]:
        with mounted(user, place, "-o", f"{LAYERS}{options}", *before) as target:
            assert shown(target)[:2] == expected
            df = user.run(["df", "--output=source", "merged"], cwd=place, check=True).stdout
            assert df.splitlines()[1] == expected[0].replace(r"\040", " ")


@pytest.mark.only_root
def test_remounting(root_user: User) -> None:
    place = layers(root_user)
    with mounted(root_user, place, "-o", f"{LAYERS},nosuid,noatime") as target:
        (target / "dir").mkdir()
        os.mknod(target / "null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        remount(root_user, place, "ro")
        assert {"ro", "nosuid", "noatime"} <= shown(target)[2]
        for code, change in [
            (errno.EEXIST, lambda: (target / "dir").mkdir()),
            (errno.EEXIST, lambda: os.mkfifo(target / "f")),
            (errno.EEXIST, lambda: os.symlink("x", target / "f")),
            (errno.EEXIST, lambda: os.link(target / "f", target / "null")),
            (errno.EROFS, lambda: (target / "new").mkdir()),
            (errno.EROFS, lambda: os.mkfifo(target / "new")),
            (errno.EROFS, lambda: os.open(target / "f", os.O_WRONLY)),
            (errno.EROFS, lambda: os.open(target / "new", os.O_CREAT | os.O_WRONLY)),
            (errno.EROFS, lambda: os.chmod(target / "f", 0o600)),
            (errno.EROFS, lambda: os.rename(target / "f", target / "g")),
            (errno.EROFS, lambda: os.unlink(target / "f")),
        ]:
            with raises(code):
                change()
        with opened(target / "null", os.O_WRONLY) as device:
            os.write(device, b"x")
        remount(root_user, place, "rw,suid,relatime")
        assert {"rw", "relatime"} <= shown(target)[2]
        assert not {"nosuid", "noatime"} & shown(target)[2]
        with (target / "f").open("w") as open_for_writing:
            done = root_user.run(["ufs-mount", "-o", "remount,ro", "merged"], cwd=place)
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
            assert "open for writing" in done.stderr
            open_for_writing.write("y")
        assert (target / "f").read_text() == "y"


def remount(user: User, place: Path, options: str) -> None:
    done = user.run(["ufs-mount", "merged", "-o", f"remount,{options}"], cwd=place, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.only_root
def test_remounting_by_mount8(root_user: User) -> None:
    """It finds the program by the type that shows, in the system's own directories alone."""
    place = layers(root_user)
    script = f"""
        mount -t tmpfs none /usr/local/sbin; ln -s {root_user.command(["ufs-mount"])[0]} /usr/local/sbin/
        mount -t fuse.ufs-mount -o {LAYERS},nosuid overlay merged
        mount -o remount,ro merged; grep merged /proc/mounts; ! mkdir merged/new 2>&1
        mount -o remount,rw merged; grep merged /proc/mounts; mkdir merged/new; umount merged
    """
    done = root_user.run(["unshare", "--mount", "sh", "-ec", script], cwd=place, check=True)
    read_only, refused, writable = done.stdout.splitlines()
    assert " ro,nosuid," in read_only
    assert "Read-only file system" in refused
    assert " rw,nosuid," in writable


def test_what_cannot_be_remounted_is_told(user: User) -> None:
    place = layers(user)
    with mounted(user, place, "-o", "lowerdir=lower") as target:
        done = user.run(["ufs-mount", "-o", "remount,rw", "merged"], cwd=place)
        why = "has no upper directory" if user.kind == ROOT else "only root may remount"
        assert (done.returncode, done.stderr.count("\n"), why in done.stderr) == (1, 1, True)
        assert "ro" in shown(target)[2]
    done = user.run(["ufs-mount", "-o", "remount,ro", "merged"], cwd=place)
    assert (done.returncode, "is no mount of ufs" in done.stderr) == (1, True)
