"""Access times with the flags of mount(8) that are about them, and with O_NOATIME (open(2))."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.mounts import fuse_mounts
from tests.support.users import ROOT, User
from tests.support.waiting import wait_until
from unionfs.serve import ENGINES

OLD = 10**18  # nanoseconds: in 2001, so that the next reading moves it even with relatime
LOWER, UPPER, NEW, DIRECTORY = "lower-file", "upper-file", "new-file", "upper-directory"


def layers(user: User) -> Path:
    script = f"""
        mkdir lower up work merged lower/lower-directory up/{DIRECTORY}
        echo l >lower/{LOWER}; echo u >up/{UPPER}; echo in >up/{DIRECTORY}/in; ln -s to up/link
    """
    user.run(["sh", "-ec", script], cwd=user.temp, check=True)
    return user.temp


@contextmanager
def mounted(user: User, place: Path, engine: str, flags: str) -> Iterator[Path]:
    options = f"lowerdir=lower,upperdir=up,workdir=work,{flags}"
    user.run(["ufs-mount", "--engine", engine, "-o", options, "merged"], cwd=place, check=True)
    try:
        yield place / "merged"
    finally:
        user.run(["umount", "merged"] if user.kind == ROOT else ["fusermount3", "-u", "merged"], cwd=place, check=True)
        wait_until(lambda: not fuse_mounts([place]), "the mount to go")


def moved(user: User, place: Path, name: str, read: str) -> str:
    """Which of the access, modification and change times moved by reading a name with `read`: "" or some of "amc"."""
    script = (
        "import os, sys; name, read = sys.argv[1:]\n"
        "times = lambda: (lambda s: (s.st_atime_ns, s.st_mtime_ns, s.st_ctime_ns))(os.lstat(name))\n"
        "before = times(); exec(read)\n"
        "print(''.join(letter for letter, one, other in zip('amc', before, times()) if one != other))"
    )
    done = user.run(["python3", "-c", script, f"merged/{name}", read], cwd=place, check=True)
    return done.stdout.strip()


READ = "open(name).read()"
LIST = "os.listdir(name)"
QUIETLY = "fd = os.open(name, os.O_RDONLY | os.O_NOATIME); os.read(fd, 9); os.close(fd)"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("flags", ["noatime", "ro", "ro,strictatime", "rw", "nodiratime"])
def test_what_may_not_move_does_not(user: User, engine: str, flags: str) -> None:
    place = layers(user)
    for name in (UPPER, DIRECTORY, "link"):
        os.utime(place / "up" / name, ns=(OLD, OLD + 1), follow_symlinks=False)
    with mounted(user, place, engine, flags):
        assert moved(user, place, LOWER, READ) == ""
        assert moved(user, place, DIRECTORY, LIST) == "" or flags == "rw"
        expected = "" if "ro" in flags.split(",") or flags == "noatime" else "a"
        assert moved(user, place, UPPER, READ) == expected
        assert moved(user, place, UPPER, READ) == ""


@pytest.mark.only_root
@pytest.mark.parametrize("engine", ENGINES)
def test_strictatime_moves_it_with_each_open(root_user: User, engine: str) -> None:
    """Also where the kernel has it all in its cache; and nothing else, before and after a remount."""
    user, place = root_user, layers(root_user)
    with mounted(user, place, engine, "strictatime"):
        for _ in range(3):
            assert moved(user, place, UPPER, READ) == "a"
            assert moved(user, place, DIRECTORY, LIST) == "a"
            assert moved(user, place, DIRECTORY, "os.stat(name + '/in')") == ""
        assert moved(user, place, LOWER, READ) == ""
        before = os.stat(place / "merged" / UPPER)
    with mounted(user, place, engine, "ro,strictatime"):
        after = os.stat(place / "merged" / UPPER)
        kept = [(s.st_atime_ns, s.st_mtime_ns, s.st_ctime_ns) for s in (before, after)]
        assert kept[0] == kept[1]
        assert moved(user, place, UPPER, READ) == ""


def test_reading_with_o_noatime(user: User) -> None:
    place = layers(user)
    os.utime(place / "up" / UPPER, ns=(OLD, OLD + 1))
    (place / "up/large").write_bytes(bytes(1 << 20))
    user.own(place / "up/large")
    os.utime(place / "up/large", ns=(OLD, OLD + 1))
    with mounted(user, place, "direct", "rw"):
        assert moved(user, place, LOWER, QUIETLY) == ""
        assert moved(user, place, UPPER, QUIETLY) == ""
        assert moved(user, place, "large", QUIETLY.replace("9", "1 << 20")) == ""
        user.run(["sh", "-c", f"echo more >>merged/{LOWER}"], cwd=place, check=True)
        assert moved(user, place, LOWER, QUIETLY) == ""
        removed = "file = open(name, 'w+'); file.write('x'); file.flush(); os.link(name, name + '2')"
        assert "m" in moved(user, place, UPPER, removed)
        assert moved(user, place, UPPER + "2", QUIETLY) == ""


@pytest.mark.only_root
def test_relatime_although_the_hosts_mount_has_noatime(root_user: User) -> None:
    user, place = root_user, root_user.temp
    subprocess.run(["mount", "-t", "tmpfs", "-o", "noatime", "none", place], check=True)
    try:
        layers(user)
        os.utime(place / "up" / UPPER, ns=(OLD, OLD + 1))
        with mounted(user, place, "direct", "rw"):
            assert moved(user, place, UPPER, READ) == ""
        with mounted(user, place, "direct", "relatime"):
            assert moved(user, place, UPPER, READ) == "a"
            (place / "merged/new").touch()
            (place / "merged/new").rename(place / "merged/newer")  # the work directory lies on the same copied mount
    finally:
        wait_until(lambda: not subprocess.run(["umount", place]).returncode, "the server to let go of the upper")
