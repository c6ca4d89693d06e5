"""What a union wrote is an upper of the kernel's overlayfs, which is the judge of every mark in it.

The lowers have no hard links: overlayfs breaks those when it copies up, and we do not.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.mounts import fuse_mounts
from tests.support.snapshot import differences, snapshot
from tests.support.users import User
from tests.support.waiting import wait_until

pytestmark = pytest.mark.real_root  # overlayfs with marks in trusted.*

_LOWERS = """
    mkdir -p top/merged top/only/deep bottom/merged/sub bottom/gone/a bottom/again bottom/chain/a/b
    mkdir -p bottom/one bottom/two
    echo top >top/merged/file; echo bottom >bottom/merged/below; echo deep >top/only/deep/file
    for name in gone/a/file again/old chain/a/b/file one/file two/file sub merged/sub/file; do
        echo $name >bottom/$name
    done
    echo plain >bottom/plain; ln -s plain bottom/link; echo x >top/new-in-top
    chown -R 7:8 bottom/two; chmod 2750 bottom/two; setfattr -n user.kept -v yes bottom/plain
"""
_CHANGES = [
    ("removed", "rm plain; rm -r gone"),
    ("made anew", "rm -r again; mkdir again; echo new >again/fresh; rm sub; mkdir sub; echo in >sub/file"),
    ("lower directory renamed", "mv only elsewhere; echo more >>elsewhere/deep/file"),
    ("merged directory renamed, its name used again", "mv merged moved; mkdir merged; echo other >merged/file"),
    ("renamed again and again", "mv chain/a chain/b; mv chain/b/b chain/c; mv chain links; mv links/c top-of-it"),
    ("into one another", "mv one two/inner; rm two/inner/file; mv two three; echo y >three/inner/z"),
    ("exchanged", ""),
    (
        "attributes",
        "chmod 700 again; chown 3:4 merged/file; setfattr -n user.x -v y merged; touch -hd @5.25 link",
    ),
    ("links", "echo first >first; ln first second; ln first merged/third; ln -s nowhere dangling; mkfifo pipe"),
    ("renamed over", "echo z >z; mv z merged/file; mkdir empty; mkdir gone; mv -T empty gone"),
]
_EXCHANGE = (
    "import sys; from unionfs import syscalls; "
    "syscalls.renameat2(-100, sys.argv[1].encode(), -100, sys.argv[2].encode(), syscalls.RENAME_EXCHANGE)"
)


@pytest.fixture
def place(root_user: User) -> Path:
    base = root_user.temp
    for name in ("up", "work", "merged", "kernel", "kernel-work"):
        (base / name).mkdir()
    subprocess.run(["bash", "-ec", _LOWERS], cwd=base, check=True)
    return base


@contextmanager
def ours(user: User, place: Path, *more: str) -> Iterator[Path]:
    options = ",".join(["lowerdir=top:bottom,upperdir=up,workdir=work", *more])
    user.run(["ufs-mount", "-o", options, "merged"], cwd=place, check=True)
    try:
        yield place / "merged"
    finally:
        subprocess.run(["umount", place / "merged"], check=True)
        wait_until(lambda: not fuse_mounts([place / "merged"]), "the mount to go")


@contextmanager
def kernels(place: Path, upper: Path) -> Iterator[Path]:
    options = f"lowerdir=top:bottom,upperdir={upper.name},workdir=kernel-work,redirect_dir=on"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, "kernel"], cwd=place, check=True)
    try:
        yield place / "kernel"
    finally:
        subprocess.run(["umount", place / "kernel"], check=True)


def with_trusted_marks(upper: Path) -> Path:
    """A copy with the marks under the names that overlayfs reads where redirects are allowed: not with userxattr."""
    copy = upper.with_name("copy")
    subprocess.run(["cp", "-a", upper, copy], check=True)
    for directory, below, files in os.walk(copy):
        for path in (Path(directory, name) for name in [*below, *files]):
            for name in [] if path.is_symlink() else os.listxattr(path, follow_symlinks=False):
                if name.startswith("user.overlay."):
                    os.setxattr(path, name.replace("user.", "trusted.", 1), os.getxattr(path, name))
                if name.startswith(("user.overlay.", "user.ufs.")):
                    os.removexattr(path, name)
    return copy


def test_the_kernels_overlayfs_shows_what_a_union_wrote(root_user: User, place: Path) -> None:
    for number, (what, script) in enumerate(_CHANGES):
        with ours(root_user, place) as merged:
            if what == "exchanged":
                root_user.run(["python3", "-c", _EXCHANGE, "three", "again"], cwd=merged, check=True)
            else:
                subprocess.run(["bash", "-ec", script], cwd=merged, check=True)
            written = snapshot(str(merged))
        with ours(root_user, place) as merged:
            assert not differences(snapshot(str(merged)), written), f"{number}, {what}: after a remount"
        copy = with_trusted_marks(place / "up")
        with kernels(place, copy) as kernel:
            assert not differences(snapshot(str(kernel)), written), f"{number}, {what}: the kernel's"
        shutil.rmtree(copy)
        shutil.rmtree(place / "kernel-work")
        (place / "kernel-work").mkdir()
