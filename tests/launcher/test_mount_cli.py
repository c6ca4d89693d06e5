"""`ufs mount` and `ufs umount` as each kind of user, and the other commands as people call them."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launcher import archives
from tests.support import processes
from tests.support.mounts import fuse_mounts
from tests.support.users import User
from tests.support.waiting import wait_until
from unionfs.serve import ENGINES


@pytest.fixture
def archive(user: User) -> Path:
    """An image called box:1, loaded."""
    path = user.temp / "box.tar"
    path.write_bytes(archives.tar(archives.docker("+gzip")))
    user.own(path)
    user.run(["ufs", "load", path], check=True)
    return path


@pytest.fixture
def target(user: User) -> Path:
    path = user.temp / "target"
    path.mkdir()
    user.own(path)
    return path


def unmount(user: User, target: Path) -> None:
    user.run(["ufs", "umount", target], check=True)
    wait_until(lambda: not fuse_mounts([target]), f"{target} to be unmounted")


@pytest.mark.parametrize("engine", ENGINES)
def test_browse_an_image(user: User, archive: Path, target: Path, engine: str) -> None:
    user.run(["ufs", "mount", "--engine", engine, "box:1", target], check=True)
    try:
        # A user's mount is closed even to root, so the user looks.
        assert user.run(["cat", target / "etc/shared"], check=True).stdout == "second"
        assert user.run(["ls", target / "etc"], check=True).stdout.split() == ["one", "shared", "two"]
        done = user.run(["sh", "-c", f"echo x > {target}/etc/new"])
        assert "Read-only file system" in done.stderr
        again = user.run(["ufs", "mount", "box:1", target])
        assert (again.returncode, "is a mount of ufs already" in again.stderr) == (1, True)
    finally:
        unmount(user, target)
    assert user.run(["ufs", "umount", target]).stderr.startswith(f"ufs: {target} is not a mount of ufs")


def test_an_archive_is_mounted_by_its_path(user: User, archive: Path, target: Path) -> None:
    user.run(["ufs", "rmi", "box:1"], check=True)
    user.run(["ufs", "mount", f"./{archive.name}", target], check=True, cwd=user.temp)
    try:
        assert user.run(["cat", target / "etc/one"], check=True).stdout == "1"
    finally:
        unmount(user, target)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_host_in_two_places_never_waits_for_itself(user: User, target: Path, engine: str) -> None:
    """Each mount would find the other in itself, and that one the first: without care both wait for ever."""
    other = user.temp / "other"
    other.mkdir()
    user.own(other)
    store = user.store
    user.run(["mkdir", store], check=True)
    for place in (target, other):
        user.run(["ufs", "mount", "--engine", engine, "host", place], check=True)
    try:
        for place in (target, other):
            below = Path(f"{place}{user.temp}")
            # Its status only says that some directories are closed to this user; what counts is that it ends.
            user.run(["find", below, "-maxdepth", "3"], timeout=60)
            listed = user.run(["ls", below], check=True, timeout=60).stdout.split()
            assert place.name not in listed, "a mount does not see itself"
            assert user.run(["ls", f"{place}{store}"]).returncode != 0, "nor the store"
            shown = user.run(["cat", place / "etc/passwd"], check=True).stdout
            assert shown == Path("/etc/passwd").read_text()
    finally:
        for place in (target, other):
            unmount(user, place)


def test_nothing_stays_when_the_server_is_killed(user: User, archive: Path, target: Path) -> None:
    user.run(["ufs", "mount", "box:1", target], check=True)
    found = subprocess.run(["pgrep", "-f", f"ufs mount box:1 {target}$"], stdout=subprocess.PIPE, text=True)
    servers = [int(pid) for pid in found.stdout.split()]
    for pid in servers:
        os.kill(pid, signal.SIGKILL)
    # A request that it has not answered yet would end with ECONNABORTED.
    wait_until(lambda: not any(map(processes.alive, servers)), "the server's end")
    done = user.run(["ls", target])
    assert "not connected" in done.stderr
    unmount(user, target)


MISTAKES = [
    (["mount", "bax:1", "{target}"], 125, "no image 'bax:1'; did you mean box:1?"),
    (["mount", "nothing-like-it", "{target}"], 125, "ufs images lists what there is"),
    (["mount", "box:1", "{target}/x"], 1, "does not exist; make it first with mkdir"),
    (["mount", "box:1", "/etc/passwd"], 1, "/etc/passwd is not a directory"),
    (["mount", "./no.tar", "{target}"], 125, "no.tar: no such file"),
    (["mount", "BOX", "{target}"], 125, "did you mean 'box'?"),
    (["umount", "/"], 1, "/ is not a mount of ufs"),
    (["load", "no.tar"], 1, "no.tar: No such file or directory"),
    (["load", "docker://box"], 1, "write box, and ufs pull box to fetch it"),
    (["load", "{target}"], 1, "holds no image: neither manifest.json nor index.json is in it"),
    (["load", "--platform", "a/b/c/d", "x"], 2, "is not a platform"),
    (["load", "a", "-i", "b"], 2, "give one"),
    (["rmi", "nope"], 1, "no image 'nope'; ufs images lists what there is\n"),
    (["rmi"], 2, "Missing argument"),
    (["lod"], 2, "did you mean load?"),
    (["exce"], 2, "did you mean exec?"),
    (["swarm", "init"], 2, "no command 'swarm': ufs runs containers on this machine alone"),
    (["images", "--nope"], 2, "No such option"),
]


def test_mistakes(user: User, archive: Path, target: Path) -> None:
    for words, status, message in MISTAKES:
        done = user.run(["ufs", *(word.format(target=target) for word in words)])
        assert (done.returncode, message in done.stderr) == (status, True), (words, done)
        assert done.stderr.startswith("ufs: ")
        assert done.stderr.count("\n") == 1
    assert not fuse_mounts([target])


def test_lists(user: User, archive: Path) -> None:
    fields = user.run(["ufs", "images"], check=True).stdout.rstrip("\n").split("\t")
    identity = archives.digest(archives.config([archives.FIRST, archives.SECOND]))
    assert fields[:4] == ["box", "1", identity[:12], "N/A"]
    assert user.run(["ufs", "images", "-q", "box"], check=True).stdout == identity[:12] + "\n"
    assert user.run(["ufs", "images", "-q", "other"], check=True).stdout == ""
    (document,) = json.loads(user.run(["ufs", "images", "--json"], check=True).stdout)
    assert document["id"] == "sha256:" + identity
    assert document["size"] == len(archives.FIRST) + len(archives.SECOND)
    assert user.run(["ufs", "rmi", identity[:8]], check=True).stdout.splitlines()[-1] == f"Deleted: sha256:{identity}"
    assert user.run(["ufs", "prune"], check=True).stdout == "Freed 0B\n"


def test_completion_offers_image_names(user: User, archive: Path) -> None:
    env = {"_UFS_COMPLETE": "bash_complete", "COMP_WORDS": "ufs rmi b", "COMP_CWORD": "2"}
    assert user.run(["ufs"], env=env, check=True).stdout == "plain,box:1\n"


def test_help_of_every_command(user: User) -> None:
    listed = user.run(["ufs", "--help"], check=True).stdout
    for name in ("load", "images", "rmi", "prune", "mount", "umount"):
        assert name in listed
        assert "Example" in user.run(["ufs", name, "--help"], check=True).stdout


@pytest.mark.parametrize(
    "line", ["ufs images --json", "ufs --help", "ufs rm --help", "ufs run --help", "ufs-run --help", "ufs-mount --help"]
)
def test_output_that_nobody_reads(root_user: User, line: str) -> None:
    """Dies of SIGPIPE, as every program in a pipeline does."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as unread:
        done = root_user.run(line.split(), stdout=unread)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, "")


def test_without_a_command_the_help_is_shown(user: User) -> None:
    alone, asked = user.run(["ufs"], check=True), user.run(["ufs", "--help"], check=True)
    assert (alone.stdout, alone.stderr) == (asked.stdout, "")


def test_a_terminal_gets_a_table_and_progress(root_user: User) -> None:
    path = root_user.temp / "box.tar"
    path.write_bytes(archives.tar(archives.docker()))
    main, side = pty.openpty()
    with os.fdopen(main, "rb", buffering=0) as screen:
        root_user.run(["ufs", "load", path], check=True, stdout=side, stderr=side)
        root_user.run(["ufs", "images"], check=True, stdout=side, stderr=side)
        os.close(side)
        seen = b""
        try:
            while piece := screen.read(65536):
                seen += piece
        except OSError:  # EIO: the other side is closed and everything is read, pty(7)
            pass
    assert b"Reading 2 layers: 0B of " in seen
    assert b"REPOSITORY   TAG   IMAGE ID       CREATED   SIZE" in seen


def test_the_start_of_a_container_imports_little() -> None:
    """What `ufs-run` pays for before it knows the image: none of what only loading needs."""
    code = "import sys; import launcher.image.resolve, launcher.image.store; print('\\n'.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout
    heavy = {"click", "zstandard", "tarfile", "hashlib", "tempfile", "threading", "dataclasses", "trio", "pyfuse3"}
    assert not heavy & set(loaded.split())
