"""What the command of an image meets: its root, its working directory, its volumes, variables and users."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.images import Images
from tests.launcher import archives
from tests.launcher.archives import Files
from tests.support.users import User
from tests.unionfs.compiled_image_support import Item, directory, item, pack, regular, symlink


def busybox(images: Images) -> bytes:
    """The one layer of the busybox image."""
    layout = images.built("busybox") / "plain.oci"
    top = json.loads((layout / "index.json").read_text())
    manifest = json.loads((layout / "blobs/sha256" / top["manifests"][0]["digest"][7:]).read_text())
    return (layout / "blobs/sha256" / manifest["layers"][0]["digest"][7:]).read_bytes()


def archive(user: User, layers: list[bytes], **config: Any) -> Path:
    """An archive of one image that the user may read."""
    files: Files = {}
    archives.layout(files, [archives.named(archives.image(files, layers, config=config), "it:1")])
    path = user.temp / "image.tar"
    path.write_bytes(archives.tar(files))
    path.chmod(0o644)
    return path


def made(user: User, images: Images, members: list[Item], **config: Any) -> Path:
    return archive(user, [busybox(images), pack(members)], **config)


LAYERLESS = {
    "Entrypoint": ["/busybox"],
    "Cmd": ["sh", "-c", "echo $A; pwd; id -u"],
    "Env": ["A=b"],
    "WorkingDir": "/w/x",
    "User": "7",
    "Volumes": {"/data": {}},
}


@pytest.mark.parametrize("kind", ["docker", "oci"])
def test_an_image_without_layers(user: User, kind: str) -> None:
    """All its fields work; what to run comes by a volume."""
    path = archive(user, [], **LAYERLESS)
    if kind == "docker":
        config = archives.dumps({"os": "linux", "config": LAYERLESS, "rootfs": {"type": "layers"}})
        entry = {"Config": "config.json", "RepoTags": ["it:1"], "Layers": None}
        path.write_bytes(archives.tar({"config.json": config, "manifest.json": archives.dumps([entry])}))
    assert user.run(["ufs", "load", path], check=True).stdout == "Loaded image: it:1\n"
    run = ["ufs-run", "--rm", "-v", "/bin/busybox:/busybox:ro", "it:1"]
    assert user.run(run, check=True).stdout == "b\n/w/x\n7\n"
    listed = user.run([*run, "ls", "/"], check=True).stdout.split()
    assert {"busybox", "data", "w"} <= set(listed)


def test_a_command_that_is_one_string_and_variables_that_are_none(user: User, images: Images) -> None:
    """An empty variable is none, one without a value is unset, as Docker merges them."""
    path = made(user, images, [], Entrypoint="/bin/env", Cmd=None, Env=["", "=x", "A=b", "B", "C=", "HOSTNAME"])
    said = user.run(["ufs-run", "--rm", path], check=True).stdout.splitlines()
    assert {"A=b", "C="} <= set(said)
    assert not [line for line in said if line.startswith(("=", "B", "HOSTNAME"))]


LINKS = [symlink("to-nothing", "made/here"), symlink("absolute", "/made/too"), symlink("up", "../../made/up")]
VOLUMES = {
    "/a/b": "/a/b",
    "/to-nothing": "/made/here",
    "/absolute/x": "/made/too/x",
    "/up": "/made/up",
    "data": "/data",
}


def test_what_an_image_calls_a_volume_or_its_working_directory_is_made(user: User, images: Images) -> None:
    """In the container alone, as directories of root, 0755, that `ufs diff` does not show."""
    places: dict[str, Any] = {name: {} for name in [*VOLUMES, "/", "/proc/x"]}
    path = made(user, images, LINKS, WorkingDir="/up/w", Volumes=places)
    before = sorted(os.listdir("/"))
    script = f"pwd -P; stat -c '%a %u' . {' '.join(VOLUMES.values())}"
    said = user.run(["ufs-run", "--name", "it", path, "sh", "-c", script], check=True)
    assert said.stdout == "/made/up/w\n" + "755 0\n" * (1 + len(VOLUMES))
    assert sorted(os.listdir("/")) == before
    assert user.run(["ufs", "diff", "it"], check=True).stdout == ""
    user.run(["ufs", "rm", "it"], check=True)


def test_they_are_made_in_a_read_only_container(user: User, images: Images) -> None:
    path = made(user, images, LINKS, WorkingDir="/to-nothing", Volumes={"/v": {}})
    said = user.run(["ufs-run", "--rm", "--read-only", path, "sh", "-c", "pwd -P; ls -d /v; touch x"])
    assert said.stdout == "/made/here\n/v\n"
    assert "Read-only file system" in said.stderr


def test_nothing_of_an_image_is_made_in_a_directory_of_the_host(user: User, images: Images) -> None:
    path = made(user, images, [], Volumes={"/here/v": {}, "/here": {}})
    shared = user.temp / "shared"
    shared.mkdir()
    user.own(shared)
    user.run(["ufs-run", "--rm", "-v", f"{shared}:/here", path, "true"], check=True)
    assert os.listdir(shared) == []


NOWHERE = {
    "a file": [regular("w", b"")],
    "below a file": [regular("f", b""), symlink("w", "f/x")],
    "a circle": [symlink("w", "w")],
}


@pytest.mark.only_root
@pytest.mark.parametrize("case", NOWHERE)
def test_a_working_directory_that_cannot_be(root_user: User, images: Images, case: str) -> None:
    """Said in one line; as a volume it keeps nothing from running."""
    said = root_user.run(["ufs-run", "--rm", made(root_user, images, NOWHERE[case], WorkingDir="/w"), "true"])
    assert said.returncode == 125
    assert "cannot enter the working directory '/w': " in said.stderr
    assert said.stderr.count("\n") == 1
    path = made(root_user, images, NOWHERE[case], Volumes={"/w": {}, "/w/v": {}})
    root_user.run(["ufs-run", "--rm", path, "true"], check=True)


@pytest.mark.parametrize(("mode", "owner"), [(0o555, 0), (0o1700, 1000)])
def test_the_root_is_what_the_layer_says_of_it(user: User, images: Images, mode: int, owner: int) -> None:
    """In the container, with and without a layer of its own, and in a mount."""
    root = item("./", tarfile.DIRTYPE, mode=mode, uid=owner, gid=owner, mtime=1_000_000_001)
    path = made(user, images, [root, directory("d")])
    expected = f"{mode:o} {owner} {owner} 1000000001"
    inside = expected if user.kind != "plain" else f"{mode:o} 0 0 1000000001"  # one id: all belongs to root
    stat = ["stat", "-c", "%a %u %g %Y"]
    user.run(["ufs", "load", path], check=True)
    for options in ([], ["--read-only"]):
        assert user.run(["ufs-run", "--rm", *options, "it:1", *stat, "/"], check=True).stdout == inside + "\n"
    target = user.temp / "mounted"
    user.run(["mkdir", target], check=True)
    user.run(["ufs", "mount", "it:1", target], check=True)
    try:
        assert user.run([*stat, target], check=True).stdout == expected + "\n"
    finally:
        user.run(["ufs", "umount", target], check=True)
    user.run(["ufs-run", "--name", "it", "it:1", "sh", "-c", ": > /d/x"], check=True)
    assert user.run(["ufs", "start", "-a", "it"]).returncode == 0
    assert user.run(["ufs", "diff", "it"], check=True).stdout.splitlines()[-2:] == ["C /d", "A /d/x"]
    assert "it" in user.run(["ufs", "ps", "-a", "-s"], check=True).stdout
    user.run(["ufs", "rm", "it"], check=True)


@pytest.mark.only_root
def test_a_passwd_of_26_000_users(root_user: User, images: Images) -> None:
    """Two megabytes; who is wanted stands last."""
    lines = [f"user{number}:x:{number}:{number}:{'x' * 40}:/home/user{number}:/bin/sh\n" for number in range(26_000)]
    passwd = "root:x:0:0::/root:/bin/sh\n" + "".join(lines[1:]) + "last:x:100:200::/last:/bin/sh\n"
    group = "".join(f"group{number}:x:{number}:\n" for number in range(26_000)) + "extra:x:300:user1,last\n"
    assert len(passwd) > 2_000_000
    path = made(root_user, images, [regular("etc/passwd", passwd.encode()), regular("etc/group", group.encode())])
    said = root_user.run(["ufs-run", "--rm", "-u", "last", path, "sh", "-c", "echo $HOME; id -u; id -g"], check=True)
    assert said.stdout == "/last\n100\n200\n"
    said = root_user.run(["ufs-run", "--rm", "-u", "25999", path, "sh", "-c", "echo $HOME"], check=True)
    assert said.stdout == "/home/user25999\n"
