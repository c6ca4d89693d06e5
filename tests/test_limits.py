"""Mounts that are started under the tight limits of their caller (getrlimit(2)), and used by others without such."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.area import Area
from tests.support.mounts import fuse_mounts
from tests.support.users import PLAIN, ROOT, User
from tests.support.waiting import wait_until
from unionfs.serve import ENGINES

FILES = 150
_USE = """
import mmap, os, resource, sys
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
count, root = int(sys.argv[1]), "merged"
read, write, new, gone, mapped, again = [], [], [], [], [], []
for number in range(count):
    at = lambda kind: f"{root}/{kind}/{number}"
    read.append(open(at("read"), "rb", buffering=0))
    write.append(open(at("write"), "r+b", buffering=0))
    new.append(open(at("new"), "w+b", buffering=0))
    gone.append(open(at("gone"), "r+b", buffering=0))
    again.append(open(at("again"), "w+b", buffering=0))
    with open(at("mapped"), "r+b") as file:
        mapped.append(mmap.mmap(file.fileno(), 0))
    os.unlink(at("gone"))
    os.unlink(at("again"))
    os.link(at("linked"), at("linked") + "x")
    os.unlink(at("linked"))
for _ in range(2):
    for number in range(count):
        text = b"%d" % number
        assert read[number].read() in (text, b""), number
        for file in (write[number], new[number], gone[number], again[number]):
            file.seek(0)
            file.write(text + b"!")
            file.seek(0)
            assert file.read() == text + b"!", number
        mapped[number][:1] = b"#"
        mapped[number].flush()
        for file in (gone[number], again[number]):
            assert os.fstat(file.fileno()).st_nlink == 0
        assert os.stat(f"{root}/linked/{number}x").st_nlink == 1
for number in range(count):
    assert open(f"{root}/write/{number}", "rb").read() == b"%d!" % number
    assert open(f"{root}/mapped/{number}", "rb").read(1) == b"#"
    assert open(f"{root}/linked/{number}x", "rb").read() == b"%d" % number
assert os.listdir(f"{root}/gone") == os.listdir(f"{root}/again") == []
"""


@contextmanager
def mounted(user: User, limits: str, *more: str) -> Iterator[Path]:
    """A mount whose server is started under `limits`, in the words of ulimit in bash(1)."""
    place = user.temp
    script = f'{limits}; exec "$@" -o lowerdir=lower,upperdir=up,workdir=work merged'
    user.run(["mkdir", "-p", "lower", "up", "work", "merged"], cwd=place, check=True)
    command = ["bash", "-c", script, "bash", *user.command(["ufs-mount", *more])]
    with user.popen(command, cwd=place, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: fuse_mounts([place]), "the mount")
        try:
            if "-f" not in more:
                assert process.wait(30) == 0
            yield place / "merged"
        finally:
            command = ["umount", "merged"] if user.kind == ROOT else ["fusermount3", "-u", "merged"]
            user.run(command, cwd=place, check=True)
            wait_until(lambda: not fuse_mounts([place]), "the mount to go")
        assert process.communicate(timeout=30)[1] == ""
        assert process.returncode == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_more_files_in_use_than_the_server_may_open(user: User, engine: str) -> None:
    script = f"""
        mkdir lower; cd lower; mkdir read write new gone mapped again linked
        for kind in read write gone mapped linked; do
            for n in $(seq 0 {FILES - 1}); do printf $n >$kind/$n; done
        done
    """
    user.run(["bash", "-ec", script], cwd=user.temp, check=True)
    with mounted(user, "ulimit -n 128", "--engine", engine):
        user.run([sys.executable, "-c", _USE, str(FILES)], cwd=user.temp, check=True)
        wait_until(lambda: not list((user.temp / "work/work").iterdir()), "hidden links to go with their files")


@pytest.mark.parametrize("engine", ENGINES)
def test_descriptors_are_given_up_where_none_is_left(user: User, engine: str) -> None:
    """Here the limit comes after the server has shared it out."""
    user.run(["sh", "-c", "mkdir lower; for n in $(seq 90); do echo $n >lower/$n; done"], cwd=user.temp, check=True)
    with mounted(user, ":", "--engine", engine):
        for pid in servers():
            user.run(["prlimit", f"--pid={pid}", "--nofile=48:48"], check=True)
        script = "cd merged; cat * | wc -l; for n in $(seq 90); do echo new >>$n; mkdir d$n; done; cat [0-9]* | wc -l"
        assert user.run(["sh", "-ec", script], cwd=user.temp, check=True).stdout.split() == ["90", "180"]


def test_a_limit_of_the_size_of_files(user: User) -> None:
    """It is for what the caller writes; where the server cannot lift it, larger files are EFBIG and all else works."""
    (user.temp / "lower").mkdir()
    (user.temp / "lower/large").write_bytes(bytes(300 << 10))
    user.own(user.temp / "lower")
    with mounted(user, "ulimit -f 100"):
        script = "cd merged; echo small >small; echo x >>large && echo copied; echo more >>small; cat small"
        done = user.run(["bash", "-c", script], cwd=user.temp)
        raised = subprocess.run(["bash", "-c", "ulimit -f 1; ulimit -Hf unlimited"], stderr=subprocess.DEVNULL)
        lifted = user.kind == ROOT and not raised.returncode  # with CAP_SYS_RESOURCE, which containers keep from root
        assert done.stdout.split() == [*["copied"] * lifted, "small", "more"]
        assert ("File too large" in done.stderr) != lifted


@pytest.mark.only_root
@pytest.mark.parametrize("more", [[], ["-f"]], ids=["background", "foreground"])
def test_a_limit_of_processor_time(area: Area, no_leaks: list[User], more: list[str]) -> None:
    """Whoever may not lift it hands over to a process that has used none, again and again; the first one stays."""
    user = area.new_user(PLAIN)
    no_leaks.append(user)
    work = "import os\nfor n in range(999): os.mkdir('merged/d'); os.rmdir('merged/d')"
    with mounted(user, "ulimit -t 1", *more):
        user.run(["sh", "-c", "echo end >merged/f"], cwd=user.temp, check=True)
        first, seen = servers(), set[str]()
        while len(seen) < 3:
            user.run([sys.executable, "-c", work], cwd=user.temp, check=True)
            seen |= set(servers())
            assert set(first) <= set(servers())
        assert len(servers()) == 2
        assert user.run(["cat", "merged/f"], cwd=user.temp, check=True).stdout == "end\n"
    wait_until(lambda: not servers(), "the servers to end")


def servers() -> list[str]:
    """The processes that serve a mount of these tests."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        words = path.read_bytes().split(b"\0") if path.exists() else []
        if b"lowerdir=lower,upperdir=up,workdir=work" in words:
            found.append(path.parent.name)
    return found


@pytest.mark.parametrize("engine", ENGINES)
def test_no_thread_to_be_had(user: User, engine: str) -> None:
    """What else threads do, copying much and fsync(2), the server does by itself; nobody waits for ever."""
    user.run(["mkdir", "lower"], cwd=user.temp, check=True)
    (user.temp / "lower/large").write_bytes(bytes(8 << 20))
    user.own(user.temp / "lower")
    with mounted(user, ":", "--engine", engine):
        for pid in servers():
            user.run(["prlimit", f"--pid={pid}", "--nproc=1:1"], check=True)
        script = "cd merged; echo x >>large; sync large; stat -c %s large"
        done = user.run(["bash", "-ec", script], cwd=user.temp, check=True)
        assert done.stdout == f"{(8 << 20) + 2}\n"
