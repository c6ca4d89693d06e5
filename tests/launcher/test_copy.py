"""`ufs cp`: between the host, containers and images, in Docker's ways, and never out of the container."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from tests.images import Images
from tests.launcher.containers import READY, Containers
from tests.support import snapshot
from tests.support.area import Area
from tests.support.users import PLAIN, User, kinds
from tests.support.waiting import wait_until

TREE = """
    umask 022; mkdir -p t/sub/deep t/empty; echo one > t/one; echo two > t/sub/two; ln t/one t/sub/deep/again
    ln -s one t/link; ln -s /etc/passwd t/out; mkfifo t/pipe; chmod 2750 t/sub; chmod 0500 t/empty; chmod 0640 t/one
    truncate -s 5G t/holes; printf end >> t/holes; touch "t/$(printf 'odd \\377\\n')" t/.hidden
    setfattr -n user.some -v 0x00ff0a31 t/one; setfattr -n user.dir -v x t/sub
    touch -hd '2001-02-03 04:05:06.123456789' t/link t/one t/sub/two; touch -d '1965-01-01 00:00:00.5' t/sub t/empty
"""


@pytest.fixture
def web(ufs: Containers) -> Containers:
    ufs.background("--name", "web", script="mkdir /dir; echo in > /dir/file; " + READY)
    ufs.run("exec", "web", "sh", "-c", "until test -s /dir/file; do :; done", check=True)
    return ufs


def make_tree(ufs: Containers) -> Path:
    ufs.user.run(["sh", "-ec", TREE], check=True)
    return ufs.user.home / "t"


def seen(ufs: Containers, path: Path) -> dict[str, dict[str, object]]:
    """The tree at `path`; what holds of owner and fifo is the same for all that are compared."""
    program = Path(snapshot.__file__).read_text().replace('entry["content"] = checksum(directory, name)', SMALL)
    done = ufs.user.run(["python3", "-c", program, path], check=True)
    return dict(json.loads(done.stdout))


SMALL = 'entry["content"] = checksum(directory, name) if info.st_size < 1 << 30 else info.st_blocks'
"""Nobody reads 5 GB of zeros."""


@pytest.mark.parametrize("state", ["running", "stopped", "created"])
def test_there_and_back(ufs: Containers, state: str) -> None:
    """Modes, times, links, holes and attributes are kept, into a container and out of it."""
    tree = make_tree(ufs)
    if state == "running":
        ufs.background("--name", "web")
    else:
        ufs.out("create", "--name", "web", "IMAGE", "true")
    if state == "stopped":
        ufs.out("start", "-a", "web")
    ufs.out("cp", str(tree), "web:/back")
    ufs.out("cp", "web:/back", "again")
    assert snapshot.differences(seen(ufs, ufs.user.home / "again"), seen(ufs, tree), frozenset({"owner"})) == ""
    archive = ufs.user.run(["ufs", "cp", "web:/back", "-"], check=True, text=False).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as listed:
        assert {"back", "back/sub/deep/again", "back/pipe"} <= set(listed.getnames())
        assert (listed.getmember("back/holes").size, len(archive) < 100_000) == (5 * 2**30 + 3, True)
    ufs.user.run(["mkdir", "untarred"], check=True)
    ufs.user.run(["tar", "-xpC", "untarred", "--xattrs", "-f", "-"], input=archive, text=False, check=True)
    untarred = seen(ufs, ufs.user.home / "untarred/back")
    assert snapshot.differences(untarred, seen(ufs, tree), frozenset({"owner"})) == ""
    assert ufs.run("cp", "-", "web:/", input=archive, text=False).returncode == 0
    assert not any(".ufs-" in name for name in untarred)


RULES: list[tuple[str, str, str | list[str]]] = [
    ("d", "new", ["new/file"]),
    ("d", "new/", ["new/file"]),
    ("d", "there", ["there/d/file"]),
    ("d/", "there", ["there/d/file"]),
    ("d/.", "there", ["there/file"]),
    ("d/.", "new", ["new/file"]),
    ("d/file", "there", ["there/file"]),
    ("d/file", "there/", ["there/file"]),
    ("d/file", "new", ["new"]),
    ("d/file", "there/old", ["there/old"]),
    ("d/file", "tolink", ["there/file"]),
    ("d/file", "filelink", ["there/old"]),
    ("dlink", "new", ["new"]),
    ("dlink/", "new", ["new/file"]),
    ("dlink/.", "there", ["there/file"]),
    ("d/file", "new/", "there is no such directory"),
    ("d/file", "none/new", "does not exist"),
    ("d", "there/old", "it cannot be copied there"),
    ("d/file/", "new", "Not a directory"),
    ("none", "new", "no such file or directory"),
    ("d/file", "fifo", "is neither a file nor a directory"),
    ("d/file", "clash", "cannot overwrite directory "),
    ("x/.", "there", "cannot overwrite non-directory "),
]
"""Of `docker cp --help` and its documentation: source, destination, what is there then or what is said."""

PLACES = """
    mkfifo fifo; mkdir -p d there clash/file x/old; echo content > d/file; echo old > there/old;
    ln -s there tolink; ln -s there/old filelink; ln -s d dlink
"""


@pytest.mark.parametrize("into", [True, False], ids=["in", "out"])
def test_directories_as_docker_has_them(area: Area, images: Images, no_leaks: list[User], into: bool) -> None:
    user = area.new_user(kinds()[-1])
    no_leaks.append(user)
    ufs = Containers(user, images.path("busybox", "docker.tar"))
    ufs.background("--name", "web")
    count = len(RULES)
    make = f"for i in $(seq 0 {count - 1}); do mkdir -p $0/$i; cd $0/$i; {PLACES}\ndone"
    user.run(["sh", "-ec", make, user.home / "h"], check=True)
    ufs.run("exec", "web", "sh", "-ec", make, "/c", check=True)
    here, there = f"{user.home}/h", "web:/c"
    one, other = (here, there) if into else (there, here)
    looks, expected = [], []
    for number, (source, destination, result) in enumerate(RULES):
        words = ("cp", f"{one}/{number}/{source}", f"{other}/{number}/{destination}")
        if isinstance(result, str):
            assert result in ufs.fails(*words), words
            continue
        ufs.out(*words)
        is_link = source == "dlink"
        looks += [f"{'readlink' if is_link else 'cat'} {number}/{path}" for path in result]
        expected += ["d" if is_link else "content" for _ in result]
    script = "; ".join([f"cd {'/c' if into else here}", *looks])
    found = ufs.out("exec", "web", "sh", "-c", script) if into else user.run(["sh", "-c", script]).stdout.strip()
    assert dict(zip(looks, found.split("\n"), strict=True)) == dict(zip(looks, expected, strict=True))
    ufs.close()


def test_owners(ufs: Containers, web: Containers) -> None:
    """Without --archive what is copied belongs to who copies, and gives no rights; with it to whom it did there."""
    chown = "" if ufs.user.kind == PLAIN else "chown 5:6 /dir/file;"
    ufs.run("exec", "web", "sh", "-ec", f"{chown} chmod 4755 /dir/file", check=True)
    ufs.out("cp", "web:/dir/file", "mine")
    status = (ufs.user.home / "mine").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (ufs.user.uid, ufs.user.gid, 0o755)
    ufs.out("cp", "-a", "web:/dir/file", "theirs")
    ufs.out("cp", "-a", "theirs", "web:/back")
    ufs.out("cp", "theirs", "web:/roots")
    look = ["exec", "web", "stat", "-c", "%u:%g %a", "/back", "/roots"]
    assert ufs.out(*look).split("\n") == ["0:0 4755" if ufs.user.kind == PLAIN else "5:6 4755", "0:0 4755"]


def test_volumes_and_images(ufs: Containers) -> None:
    """What is mounted at a volume's place is seen whether the container runs or not; what comes out of an image is
    what is in it."""
    ufs.user.run(["sh", "-c", "mkdir v; echo volume > v/file"], check=True)
    ufs.background("--name", "web", "-v", "./v:/vol")
    for _ in "running", "stopped":
        assert ufs.run("cp", "web:/vol", "-", check=True).stdout.count("volume") == 1
        assert "localhost" in ufs.run("cp", "web:/etc/hosts", "-", check=True).stdout
        ufs.out("cp", "v/file", "web:/vol/new")
        assert (ufs.user.home / "v/new").read_text() == "volume\n"
        (ufs.user.home / "v/new").unlink()
        ufs.run("stop", "-t", "0", "web", check=True)
    ufs.out("cp", f"{ufs.image}:/etc/passwd", "passwd")
    assert "root:" in (ufs.user.home / "passwd").read_text()
    assert "images do not change" in ufs.fails("cp", "passwd", f"{ufs.image}:/etc/passwd")
    assert "neither of the two" in ufs.fails("cp", "passwd", "other")
    assert "no container 'nosuch'" in ufs.fails("cp", "nosuch:/x", "other")


def test_links_lead_nowhere_else(ufs: Containers, web: Containers) -> None:
    """Absolute links and dots begin and end in the container's root; on the host a link is no directory to go into."""
    home = ufs.user.home
    ufs.user.run(
        ["sh", "-ec", "mkdir victim; echo secret > victim/file; mkdir -p dir; ln -s ../victim dir/e"], check=True
    )
    script = f"ln -s {home}/victim /evil; ln -s ../../../..{home}/victim /dots; mkdir /dir/e; echo x > /dir/e/file"
    ufs.run("exec", "web", "sh", "-ec", script, check=True)
    for path in ("/evil/file", "/dots/file", f"/../../..{home}/victim/file", f"{home}/victim/file"):
        assert "no such file" in ufs.fails("cp", f"web:{path}", "got")
    assert "does not exist" in ufs.fails("cp", "victim/file", "web:/evil/new")
    ufs.run("exec", "web", "mkdir", "-p", f"{home}/victim", check=True)
    ufs.out("cp", "dir/e/file", "web:/evil/new")
    assert ufs.out("exec", "web", "cat", f"{home}/victim/new") == "secret"
    assert "cannot overwrite non-directory dir/e with a directory" in ufs.fails("cp", "web:/dir", ".")
    assert sorted(os.listdir(home / "victim")) == ["file"]
    assert (home / "victim/file").read_text() == "secret\n"


def test_a_container_that_changes_while_it_is_copied(ufs: Containers) -> None:
    """A directory that is now one and now a link out: nothing of the host is read or written by it."""
    home = ufs.user.home
    ufs.user.run(["sh", "-ec", "mkdir victim; echo secret > victim/file; mkdir in; echo new > in/new"], check=True)
    script = f"mkdir -p /c/d; while :; do mv /c/d /c/x; ln -s {home}/victim /c/d; rm /c/d; mv /c/x /c/d; done"
    ufs.background("--name", "web", script=script)
    for _ in range(3):
        said = ufs.run("cp", "web:/c", "-", text=False)
        assert b"secret" not in said.stdout
        ufs.run("cp", "web:/c/d/file", "got")
        ufs.run("cp", "in/.", "web:/c/d")
    assert not (home / "got").exists()
    assert sorted(os.listdir(home / "victim")) == ["file"]


def hostile(name: str, *, link: str = "", kind: bytes = tarfile.REGTYPE) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        evil = tarfile.TarInfo("evil")
        evil.type, evil.linkname = tarfile.SYMTYPE, "/dir"
        archive.addfile(evil)
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        archive.addfile(info)
    return out.getvalue()


HOSTILE = [
    (hostile("../../dir/file"), "leads out"),
    (hostile("/../dir/file"), "leads out"),
    (hostile("evil/file"), "cannot overwrite non-directory"),
    (hostile("x", link="evil/file", kind=tarfile.LNKTYPE), "which is not in it"),
    (hostile("x", link="../dir/file", kind=tarfile.LNKTYPE), "leads out"),
    (b"no archive at all" * 100, "is no tar archive, or was cut"),
    (hostile("y")[:700], "is no tar archive, or was cut"),
]


def test_hostile_archives(web: Containers) -> None:
    for archive, says in HOSTILE:
        done = web.run("cp", "-", "web:/tmp", input=archive, text=False)
        assert (done.returncode, done.stderr.count(b"\n")) == (1, 1), says
        assert says.encode() in done.stderr
    assert web.out("exec", "web", "cat", "/dir/file") == "in"


def test_a_file_is_there_as_a_whole_or_as_it_was(web: Containers) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("file")
        info.size = 100_000
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    done = web.run("cp", "-", "web:/dir", input=out.getvalue()[:50_000], text=False)
    assert b"unexpected end of data" in done.stderr
    assert web.out("exec", "web", "sh", "-c", "cat /dir/file; ls -A /dir") == "in\nfile"


@pytest.mark.parametrize("options", [["-u", "7"], ["--engine", "pyfuse3", "--nested"], ["--read-only"]], ids=str)
def test_containers_of_every_kind(ufs: Containers, options: list[str]) -> None:
    ufs.user.run(["sh", "-c", "echo given > given"], check=True)
    ufs.background("--name", "web", *options)
    for state in "running", "paused", "stopped":
        if state == "paused":
            ufs.out("pause", "web")
        if state == "stopped":
            ufs.out("stop", "-t", "0", "web")
        if options == ["--read-only"] and state != "stopped":
            assert "Read-only file system" in ufs.fails("cp", "given", "web:/tmp/x")
            continue
        ufs.out("cp", "given", "web:/tmp/x")
        ufs.out("cp", "web:/tmp/x", f"got-{state}")
        assert (ufs.user.home / f"got-{state}").read_text() == "given\n"
    assert ufs.run("export", "web", text=False).stdout.count(b"given\n") == 1
    ufs.out("commit", "web", "new")
    ufs.out("cp", "new:/tmp/x", "got")


def test_many_at_once_and_one_that_is_killed(ufs: Containers) -> None:
    """Copies of a container that does not run wait for one another, a start waits for them, and one that is killed
    leaves nothing behind."""
    ufs.user.run(
        ["sh", "-c", "mkdir d; for i in $(seq 300); do echo $i > d/$i; done; head -c 50000000 /dev/zero > d/large"],
        check=True,
    )
    ufs.out("create", "--name", "web", "IMAGE", "sh", "-c", "ls /a /b /c | wc -l")
    with ufs.user.popen(["ufs", "cp", "d", "web:/killed"]) as killed:
        wait_until(
            lambda: list((ufs.user.store / "containers").glob("*/work/work/*")) or killed.poll() is not None,
            "it to work",
        )
        killed.kill()
    copies = [ufs.user.popen(["ufs", "cp", "d", f"web:/{name}"]) for name in "abc"]
    assert [copy.wait() for copy in copies] == [0, 0, 0]
    assert ufs.out("start", "-a", "web") == "908"
