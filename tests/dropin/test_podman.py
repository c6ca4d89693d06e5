"""`ufs-mount` in the place of fuse-overlayfs: podman and buildah get the same from both."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dropin.engines import BUILD, Engine
from tests.images import Images
from tests.support.area import Area
from tests.support.installed import Installed
from tests.support.overlay import Overlay
from tests.support.users import ROOT, SUBUID, User

pytestmark = pytest.mark.only_root

# What an image goes through: every RUN is a layer of its own, mounted over all before it.
CONTAINERFILE = """\
FROM localhost/busybox
RUN mkdir -p /a/b/deep && echo one > /a/f && ln /a/f /a/g && ln -s f /a/l && chown 5:6 /a/g
RUN mv /a/b /a/c && rm /a/l && echo two >> /a/f && mkdir /etc/x && rm -rf /home && mkdir /home && mv /etc/x /etc/y
RUN mv /a /z && chown -R 7:8 /z/c && mkfifo /z/p && chmod 4711 /z/g && rm -r /root && echo file > /root
RUN mkdir /set && chgrp 9 /set && chmod 2755 /set && touch /set/in
RUN cp -a /z /copy && rm -rf /z/c/deep && ln /copy/f /copy/h && touch -d '2001-02-03 04:05:06' /copy/f
"""
WORK = "rm /z/p; echo x > /new; mkdir /d; mv /z/c /d/; mv /copy /d/copy; chmod 600 /d/copy/f; echo more >> /d/copy/h"
VOLATILE = ("dev", "proc", "sys", "run", "etc/hosts", "etc/resolv.conf", "etc/hostname", "etc/mtab")


BY_ROOT = pytest.mark.parametrize("someone", [ROOT], indirect=True)
"""What the kind of user does not matter for: a container of rootless podman takes 20 seconds on machines without a
session manager, with either program."""


@pytest.fixture(params=[ROOT, SUBUID])
def someone(request: pytest.FixtureRequest, area: Area, no_leaks: list[User]) -> User:
    made = area.new_user(request.param)
    no_leaks.append(made)
    return made


@pytest.fixture
def engines(someone: User, installed: Installed, images: Images) -> Iterator[list[Engine]]:
    programs = {"ours": installed.command("ufs-mount"), "theirs": Path("/usr/bin/fuse-overlayfs")}
    made = [Engine(someone, program, someone.home / name) for name, program in programs.items()]
    for engine in made:
        (engine.place / "Containerfile").write_text(CONTAINERFILE)
        engine.sh(f"podman load --quiet --input {images.path('busybox', 'docker.tar')}")
    yield made
    for engine in made:
        engine.remove()


def tree(archive: Path) -> dict[str, object]:
    """What `podman export` gives: everything but times and what differs from container to container."""
    found: dict[str, object] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.name.rstrip("/").startswith(VOLATILE):
                continue
            data = tar.extractfile(member) if member.isreg() else None
            digest = hashlib.sha256(data.read()).hexdigest() if data else ""
            found[member.name] = (member.type, oct(member.mode), member.uid, member.gid, member.linkname, digest)
    return found


def test_build_run_diff_and_commit_are_as_with_fuse_overlayfs(engines: list[Engine]) -> None:
    seen = []
    for engine in engines:
        engine.sh(f"{BUILD} --timestamp 1000000000 --tag built .")
        everything = "find / -xdev -path /proc -prune -o -print"
        inside = engine.run("--name worked", "localhost/built", f"{WORK}; {everything}")
        changed = sorted(engine.sh("podman diff worked").splitlines())
        engine.sh("podman commit --quiet worked again; podman create --name exported localhost/again true")
        engine.sh("podman export --output exported.tar exported; podman rm worked exported")
        layers = engine.sh("podman image inspect --format '{{.RootFS.Layers}}' localhost/built")
        seen.append(
            (sorted(inside.splitlines()), changed, tree(engine.place / "exported.tar"), layers.count("sha256:"))
        )
    ours, theirs = seen
    assert ours[0] == theirs[0]
    assert ours[1] == theirs[1]
    assert ours[2] == theirs[2]
    assert ours[3] == theirs[3] == 6
    assert "d/copy/f" in ours[2]


def test_the_root_of_a_container_is_ours(engines: list[Engine]) -> None:
    shown = engines[0].run("", "localhost/busybox", "mount | head -n 1")
    assert shown.startswith("ufs on / type fuse.ufs")


@BY_ROOT
def test_a_read_only_container(engines: list[Engine]) -> None:
    command = "touch /x 2>&1 || echo refused; head -n 1 /etc/passwd"
    both = [engine.run("--read-only", "localhost/busybox", command) for engine in engines]
    assert both[0] == both[1]
    assert "refused" in both[0]


@BY_ROOT
def test_a_volume_with_an_overlay_on_it(engines: list[Engine]) -> None:
    """`-v SRC:DST:O` asks for an overlay whose lower is a directory of the host."""
    for engine in engines:
        source = engine.place / "source"
        source.mkdir()
        (source / "file").write_text("on the host\n")
        command = "cat /data/file; echo changed > /data/file; cat /data/file"
        shown = engine.run(f"--volume {source}:/data:O", "localhost/busybox", command)
        assert shown == "on the host\nchanged\n"
        assert (source / "file").read_text() == "on the host\n"


@pytest.mark.parametrize("someone", [SUBUID], indirect=True)
def test_a_container_with_other_ids_than_its_layers(engines: list[Engine]) -> None:
    """The engine leaves the layers as they are and has the mount program show other owners (uidmapping=)."""
    engine = engines[0]
    script = "mkdir -m 700 /new; touch /new/in; chown 7:8 /new/in; stat -c %u:%g:%a /etc/passwd /new /new/in"
    seen = engine.run("--name mapped --userns=keep-id --user 0", "localhost/busybox", script)
    assert seen.splitlines() == ["0:0:644", "0:0:700", "7:8:644"]
    engine.sh("podman commit --quiet mapped again; podman create --name exported localhost/again true")
    engine.sh("podman export --output exported.tar exported; podman rm mapped exported")
    exported = tree(engine.place / "exported.tar")
    assert [exported[name][2:4] for name in ("etc/passwd", "new", "new/in")] == [(0, 0), (0, 0), (7, 8)]


@BY_ROOT
def test_an_engine_whose_storage_lies_in_a_mount(someone: User, installed: Installed, images: Images) -> None:
    """Its layers, whiteouts and marks are kept by our mount below, through a remount."""
    outer = Overlay(someone, someone.temp)
    program = installed.command("ufs-mount")
    archive = images.path("busybox", "docker.tar")
    with outer.mounted():
        engine = Engine(someone, program, someone.temp / "merged/engine")
        (engine.place / "Containerfile").write_text(CONTAINERFILE)
        engine.sh(f"podman load --quiet --input {archive}; {BUILD} --timestamp 1000000000 --tag built .")
        engine.run("--name worked", "localhost/built", WORK)
        changed = engine.sh("podman diff worked").splitlines()
        engine.sh("podman commit --quiet worked again; umount graph/overlay || true")
    assert {"A /new", "A /d/copy/f", "D /copy", "D /z/c", "D /z/p"} <= set(changed)
    with outer.mounted():
        look = 'find /z /d /set -exec stat -c "%n %A %u:%g %h" {} +; cat /d/copy/h'
        seen = engine.run("", "localhost/again", look)
        assert "/d/copy/f -rw------- 5:6 3" in seen
        assert "/set/in -rw-r--r-- 0:9 1" in seen
        assert seen.endswith("one\ntwo\nmore\n")
        engine.remove()
