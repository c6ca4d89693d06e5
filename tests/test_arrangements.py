"""Which directories may be what to a mount, and to one mount after another."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.mounts import fuse_mounts
from tests.support.users import ROOT, User
from tests.support.waiting import wait_until


def laid_out(user: User) -> Path:
    script = """
        mkdir -p lower/sub lower/m lower/up lower/work up/in work/in work2 merged second box
        mkdir box/lower box/up box/work; echo one >box/lower/f; mkdir box/lower/sub
        echo one >lower/f; echo two >lower/sub/g; ln -s up alias
    """
    user.run(["sh", "-ec", script], cwd=user.temp, check=True)
    return user.temp


def mount(user: User, place: Path, options: str, target: str = "merged") -> subprocess.CompletedProcess[str]:
    return user.run(["ufs-mount", "-o", options, target], cwd=place, timeout=60)


def unmount(user: User, place: Path, target: str = "merged") -> None:
    user.run(["umount", target] if user.kind == ROOT else ["fusermount3", "-u", target], cwd=place, check=True)


SEPARATE = "cannot be one or lie in one another"


@pytest.mark.only_root
@pytest.mark.parametrize(
    ("options", "target", "said"),
    [
        ("lowerdir=up,upperdir=up,workdir=work", "merged", "cannot be a lower directory, too"),
        ("lowerdir=lower:alias,upperdir=up,workdir=work", "merged", "cannot be a lower directory, too"),
        ("lowerdir=up/in,upperdir=up,workdir=work", "merged", "a lower directory cannot lie in the upper directory"),
        ("lowerdir=work,upperdir=up,workdir=work", "merged", "a lower directory cannot be the work directory"),
        ("lowerdir=lower,upperdir=up,workdir=up", "merged", SEPARATE),
        ("lowerdir=lower,upperdir=up,workdir=alias/in", "merged", SEPARATE),
        ("lowerdir=lower,upperdir=work/in,workdir=work", "merged", SEPARATE),
        ("lowerdir=lower,upperdir=up,workdir=work", "alias/in", "the mount point cannot lie in the upper directory"),
        ("lowerdir=lower,upperdir=up,workdir=work", "work", "the mount point cannot be the work directory"),
        ("lowerdir=lower,upperdir=up,workdir=work", "work/in", "the mount point cannot be the work directory"),
    ],
)
def test_directories_that_lie_in_one_another_are_refused(root_user: User, options: str, target: str, said: str) -> None:
    user, place = root_user, laid_out(root_user)
    done = mount(user, place, options, target)
    assert (done.returncode, done.stdout, done.stderr.count("\n"), said in done.stderr) == (1, "", 1, True), done.stderr
    assert not fuse_mounts([place])


@pytest.mark.only_root
@pytest.mark.parametrize(
    ("options", "target"),
    [
        ("lowerdir=lower,upperdir=up,workdir=work", "up"),
        ("lowerdir=lower,upperdir=up,workdir=work", "lower"),
        ("lowerdir=lower,upperdir=up,workdir=work", "lower/m"),
        ("lowerdir=box/lower,upperdir=box/up,workdir=box/work", "box"),
        ("lowerdir=lower,upperdir=lower/up,workdir=lower/work", "merged"),
        ("lowerdir=lower,upperdir=lower/up,workdir=lower/work", "lower/m"),
        ("lowerdir=lower,upperdir=lower/up,workdir=lower/work", "lower"),
    ],
)
def test_directories_that_may_lie_in_one_another(root_user: User, options: str, target: str) -> None:
    user, place = root_user, laid_out(root_user)
    done = mount(user, place, options, target)
    assert (done.returncode, done.stderr) == (0, "")
    try:
        script = "cd $1; find . >/dev/null; echo new >n; mkdir d; mv f d; rm -r sub; cat n d/f; ls"
        seen = user.run(["sh", "-ec", script, "sh", place / target], check=True, timeout=60).stdout.split()
    finally:
        unmount(user, place, str(place / target))
    there = set() if target == "box" else {"m", "up", "work", "in"}
    hidden = {"m"} if target == "lower/m" else set()
    hidden |= {"up", "work", "in"} if "=lower/up" in options else set()
    assert seen == ["new", "one", *sorted({"d", "n", *there} - hidden)]
    assert (place / "lower/f").read_text() == "one\n"


@pytest.mark.only_root
def test_an_upper_serves_one_mount_at_a_time(root_user: User) -> None:
    user, place = root_user, laid_out(root_user)
    assert mount(user, place, "lowerdir=lower,upperdir=up,workdir=work").returncode == 0
    try:
        done = mount(user, place, "lowerdir=lower,upperdir=alias,workdir=work2", "second")
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "alias: the upper directory is in use by another mount" in done.stderr
        done = mount(user, place, "lowerdir=lower,upperdir=work2,workdir=work", "second")
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert f"work: the work directory is in use by another mount, on {place}/merged;" in done.stderr
    finally:
        unmount(user, place)


def test_unmounted_and_at_once_mounted_again(user: User) -> None:
    place = laid_out(user)
    for number in range(5):
        done = mount(user, place, "lowerdir=lower,upperdir=up,workdir=work", "merged" if number % 3 else "second")
        assert (done.returncode, done.stderr) == (0, "")
        unmount(user, place, "merged" if number % 3 else "second")


@pytest.mark.only_root
def test_a_mount_that_another_namespace_still_holds_is_waited_for(root_user: User) -> None:
    user, place = root_user, laid_out(root_user)
    options = "lowerdir=lower,upperdir=up,workdir=work"
    assert mount(user, place, options).returncode == 0
    with user.popen(
        ["unshare", "--mount", "sh", "-c", "echo; read x"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        holder.stdout.readline()
        unmount(user, place)
        with user.popen(["ufs-mount", "-o", options, "merged"], cwd=place) as again:
            server = "the second mount to wait for the first one's server"
            wait_until(lambda: "nanosleep" in Path(f"/proc/{again.pid}/stack").read_text(), server)
            assert again.poll() is None
            holder.stdin.close()
            assert again.wait(30) == 0
    unmount(user, place)
