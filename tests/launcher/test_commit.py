"""`ufs commit`, `ufs export`, `ufs import`: what a container shows becomes an image, and other tools take it."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import json
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.images import Images
from tests.launcher.containers import Containers
from tests.support import snapshot
from tests.support.users import PLAIN, User

CHANGES = """
    cd /w; echo more >> hard1; ln hard2 new-name; mv moved moved2; rm -r gone; rm -r tofile; echo f > tofile
    rm todir; mkdir todir; echo d > todir/in; rm -r again; mkdir again; echo new > again/only; chmod 711 mode
    mkfifo pipe; ln -s nowhere link; touch .wh.own; mkdir 'odd
name'; truncate -s 3M holes; echo end >> holes; mv moved2/one moved2/renamed; echo x > moved2/deep/new
    mkdir -p fresh/deep; touch -d '2001-02-03 04:05:06' fresh/deep
"""

BASE = """
    mkdir /w; cd /w; echo 1 > hard1; ln hard1 hard1b; echo 2 > hard2; ln hard2 hard2b; mkdir -p moved/deep gone/deep
    echo one > moved/one; echo two > moved/deep/two; mkdir tofile again; echo a > again/a; echo t > todir; mkdir mode
    mkdir same; echo s > same/s; chmod 750 same
"""


@pytest.fixture
def based(ufs: Containers) -> Containers:
    """With a container `web` of an image that was committed before, changed in all ways."""
    chown = "" if ufs.user.kind == PLAIN else "chown -R 7:8 same moved; chown -h 9:9 hard1"
    ufs.run("run", "--name", "base", "IMAGE", "sh", "-ec", BASE + chown, check=True)
    ufs.run("commit", "base", "base", check=True)
    ufs.user.run(["sh", "-c", "mkdir x; echo a > x/attributes; setfattr -n user.one -v 1 x/attributes x"], check=True)
    ufs.run("run", "--name", "web", "base", "sh", "-ec", CHANGES, check=True)
    ufs.run("cp", "x", "web:/w/", check=True)
    return ufs


def exported(ufs: Containers, name: str) -> dict[str, Any]:
    """A container's tree, by `ufs export`."""
    done = ufs.run("export", name, text=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = {}
    firsts: dict[str, list[str]] = {}
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        for member in archive:
            if member.islnk():
                firsts.setdefault(member.linkname, [member.linkname]).append(member.name)
                continue
            xattrs = {key: value for key, value in member.pax_headers.items() if "xattr" in key}
            file = archive.extractfile(member) if member.isreg() else None
            content = hashlib.sha256(file.read()).hexdigest() if file else member.linkname
            facts = (
                member.type,
                oct(member.mode),
                member.uid,
                member.gid,
                member.pax_headers.get("mtime", member.mtime),
            )
            found[member.name] = [*facts, xattrs, content, []]
    for name in ("hosts", "hostname", "resolv.conf", "mtab"):  # to mount on, where the container was started
        found.pop(f"etc/{name}", None)
    for first, names in firsts.items():
        for name in names:
            found[name] = [*found[first][:-1], sorted(names)]
    return found


def test_the_image_shows_what_the_container_did(based: Containers) -> None:
    """Renamed, replaced and removed directories, hard links in part, attributes, owners: the same then."""
    before = exported(based, "web")
    identity = based.out("commit", "web", "changed").removeprefix("sha256:")
    assert len(identity) == 64
    assert based.out("fsck", "-q") == "", "an index that the first use makes is no flaw"
    based.run("create", "--name", "next", "changed", "true", check=True)
    after = exported(based, "next")
    assert sorted(after) == sorted(before)
    assert {name: (after[name], before[name]) for name in after if after[name] != before[name]} == {}
    assert {"w/.wh.own", "w/moved2/deep/two", "w/new-name", "w/hard2b", "w/x/attributes"} <= after.keys()
    assert before["w/hard2"][-1] == ["w/hard2", "w/hard2b", "w/new-name"]
    assert before["w/hard1"][-1] == ["w/hard1", "w/hard1b"]
    assert based.out("diff", "next") == ""
    layer = newest_layer(based.user)
    with tarfile.open(layer) as archive:
        names = {name for name in archive.getnames() if not name.startswith("w/")}
        assert names <= {".", "w"}, "nothing of the launcher's, and nothing that did not change"
        assert "w/same/s" not in archive.getnames()


def newest_layer(user: User) -> Path:
    return max((user.store / "layers").iterdir(), key=lambda path: path.stat().st_mtime_ns)


@pytest.mark.only_root
def test_other_tools_take_it(area: Any, images: Images, no_leaks: list[User]) -> None:
    """skopeo copies it, umoci unpacks what the container showed, and podman runs it."""
    user = area.new_user("root")
    no_leaks.append(user)
    ufs = Containers(user, images.path("busybox", "docker.tar"))
    ufs.run("run", "--name", "base", "IMAGE", "sh", "-ec", BASE + "chown -R 7:8 same moved", check=True)
    ufs.run("commit", "base", "localhost/base:1", check=True)
    ufs.run("run", "--name", "web", "localhost/base:1", "sh", "-ec", CHANGES, check=True)
    ufs.run(
        "commit", "-m", "all of it", "-a", "me", "-c", "CMD cat /w/again/only", "web", "localhost/new:1", check=True
    )
    user.run(["skopeo", "copy", "-q", f"oci:{user.store}:localhost/new:1", "oci:copy:new"], check=True)
    user.run(["umoci", "raw", "unpack", "--image", "copy:new", "unpacked"], check=True)
    ufs.run("export", "-o", "web.tar", "web", check=True)
    user.run(["sh", "-ec", "mkdir root; tar -xpf web.tar -C root --numeric-owner --xattrs"], check=True)
    trees = [
        json.loads(user.run(["python3", snapshot.__file__, name], check=True).stdout) for name in ("unpacked", "root")
    ]
    made = {"etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab", "dev", "proc", "sys", "etc"}  # to mount on
    seen, right = (
        {name: entry for name, entry in tree.items() if name.split("/dev/")[0] not in made} for tree in trees
    )
    # The name has another form in a layer, or it would hide one that is called own.
    seen["w/.wh.own"] = seen.pop("w/.ufs.wh.own")
    assert snapshot.differences(seen, right) == ""
    podman = ["podman", "--root", "p", "--runroot", "r", "--storage-driver", "vfs"]
    pulled = user.run([*podman, "pull", "-q", "oci:copy:new"], check=True).stdout.strip()
    config = json.loads(user.run([*podman, "image", "inspect", pulled], check=True).stdout)[0]
    assert (config["Author"], config["History"][-1]["comment"]) == ("me", "all of it")
    assert config["Config"]["Cmd"] == ["/bin/sh", "-c", "cat /w/again/only"]
    ufs.close()


def test_changes(ufs: Containers) -> None:
    """Each instruction of a Dockerfile that says how an image is run, upon what the container was made with."""
    ufs.out("create", "--name", "web", "-e", "A=1", "--label", "l=1", "-w", "/tmp", "IMAGE", "sh", "-c", "true")
    words = [
        "ENV B=2 C='a b'",
        "ENV D some words",
        "LABEL x=y",
        "USER 7",
        "WORKDIR sub",
        "STOPSIGNAL SIGINT",
        "EXPOSE 80 53/udp",
    ]
    words += ['VOLUME ["/v"]', "ONBUILD RUN x", "cmd top -b", 'ENTRYPOINT ["/bin/env"]']
    ufs.out("commit", "-m", "why", "-a", "who", *[word for line in words for word in ("-c", line)], "web", "new:1")
    document = json.loads(ufs.out("inspect", "new:1"))[0]
    section = document["Config"]
    assert section["Env"][-4:] == ["A=1", "B=2", "C=a b", "D=some words"]
    assert (section["Labels"], section["User"], section["WorkingDir"]) == ({"l": "1", "x": "y"}, "7", "/tmp/sub")
    assert (section["Cmd"], section["Entrypoint"]) == (["/bin/sh", "-c", "top -b"], ["/bin/env"])
    assert sorted(section["ExposedPorts"]) == ["53/udp", "80/tcp"]
    assert "why" in ufs.out("history", "new:1")
    for line in ("RUN x", "ENV", "EXPOSE x", "USER", "LABEL x", "CMD [1]", "ENV 'a"):
        assert "--change" in ufs.fails("commit", "-c", line, "web")
    assert "is not an image name" in ufs.fails("commit", "web", "Upper", status=125)
    assert "no container 'nosuch'" in ufs.fails("commit", "nosuch")
    assert len(ufs.out("images", "-q").split()) == 2


@pytest.mark.parametrize("pause", [[], ["--pause"]])
def test_a_running_container(ufs: Containers, pause: list[str]) -> None:
    ufs.user.run(["mkdir", "v"], check=True)
    ufs.background(
        "--name", "web", "-v", "./v:/vol", script="echo 1 > /file; mkdir /ready; while :; do sleep 1000; done"
    )
    ufs.run(
        "exec", "web", "sh", "-c", "until test -d /ready; do :; done; echo v > /vol/x; echo t > /dev/shm/t", check=True
    )
    ufs.out("commit", *pause, "web", "new")
    assert ufs.state("web") == "running"
    assert ufs.out("run", "--rm", "new", "sh", "-c", "cat /file; ls /dev/shm; test -e /vol || echo no") == "1\nno"


@pytest.mark.parametrize("form", ["file", "compressed pipe", "web"])
def test_export_and_import(ufs: Containers, form: str) -> None:
    ufs.out("run", "--name", "web", "IMAGE", "sh", "-c", "echo there > /file; ln /file /again; chmod 700 /file")
    ufs.out("export", "-o", "web.tar", "web")
    archive = (ufs.user.home / "web.tar").read_bytes()
    words = ("import", "-c", "CMD cat /again", "-m", "flat one")
    if form == "file":
        ufs.out(*words, "web.tar", "flat:1")
        ufs.out("create", "--name", "next", "flat:1", "true")
        assert exported(ufs, "next") == exported(ufs, "web")
    elif form == "web":
        with Served(archive) as url:
            assert "404" in ufs.fails("import", "-q", url + "nosuch")
            assert "cannot be read" in ufs.fails("import", "-q", "http://127.0.0.1:1/x")
            assert "is a directory" in ufs.fails("import", "-q", "/tmp")
            ufs.out(*words, url + "web.tar", "flat:1")
    else:
        assert ufs.run(*words, "-", "flat:1", input=gzip.compress(archive), text=False).returncode == 0
    assert ufs.out("run", "--rm", "flat:1") == "there"
    assert "flat one" in ufs.out("history", "flat:1")


class Served:
    """A URL, with a slash at the end, below which one file is."""

    def __init__(self, content: bytes) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = self.path == "/web.tar"
                self.send_response(200 if found else 404)
                self.send_header("Content-Length", str(len(content) if found else 0))
                self.end_headers()
                self.wfile.write(content if found else b"")

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_port}/"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.mark.parametrize("content", [b"", b"no archive" * 1000, b"\x1f\x8b" + b"x" * 600])
def test_what_is_no_archive_is_not_imported(ufs: Containers, content: bytes) -> None:
    done = ufs.run("import", "-q", "-", "flat", input=content, text=False)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (1, b"", 1)
    assert ufs.out("images", "-q") == ""
