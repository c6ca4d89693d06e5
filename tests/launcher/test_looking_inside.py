"""Looking into images, saving, tagging and checking them, compared with what umoci unpacks and skopeo reads."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.images import Images
from tests.launcher import archives
from tests.support.users import User

pytestmark = pytest.mark.only_root


@pytest.fixture
def tricky(root_user: User, images: Images) -> User:
    """A user who has the image tricky:latest."""
    root_user.run(["ufs", "load", images.path("tricky", "gzip.oci.tar")], check=True)
    identity = root_user.run(["ufs", "images", "-q"], check=True).stdout.strip()
    root_user.run(["ufs", "tag", identity, "tricky"], check=True)
    return root_user


@pytest.fixture(scope="module")
def unpacked(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same image as umoci unpacks it."""
    bundle = tmp_path_factory.mktemp("unpacked") / "bundle"
    layout = images.path("tricky", "gzip.oci")
    name = json.loads((layout / "index.json").read_text())["manifests"][0]["annotations"]
    tag = name["org.opencontainers.image.ref.name"]
    subprocess.run(["umoci", "unpack", "--image", f"{layout}:{tag}", bundle], check=True, capture_output=True)
    return bundle / "rootfs"


def archive_of(files: archives.Files, folder: Path) -> Path:
    path = folder / "image.tar"
    path.write_bytes(archives.tar(files))
    path.chmod(0o644)
    return path


def below(root: Path) -> set[bytes]:
    found = {b"/"}
    for directory, folders, files in os.walk(os.fsencode(root)):
        where = directory[len(os.fsencode(root)) :]
        found |= {where + b"/" + name for name in folders + files}
    return found


def test_find_names_what_umoci_unpacks(tricky: User, unpacked: Path) -> None:
    out = tricky.run(["ufs", "find", "tricky", "-print0"], check=True, text=False).stdout
    assert set(out.split(b"\0")) - {b""} == below(unpacked)


@pytest.mark.parametrize(
    "arguments",
    [["-type", "l"], ["-name", "*a*"], ["-perm", "-4000"], ["-size", "+1k", "-type", "f"], ["-maxdepth", "1"]],
)
def test_find_selects_as_find_does(tricky: User, unpacked: Path, arguments: list[str]) -> None:
    ours = tricky.run(["ufs", "find", "tricky", *arguments, "-print0"], check=True, text=False).stdout
    depth = [] if "-maxdepth" not in arguments else arguments
    tests = [] if depth else arguments
    theirs = subprocess.run(
        ["find", unpacked, *depth, *tests, "-print0"], check=True, capture_output=True
    ).stdout.replace(os.fsencode(unpacked), b"")
    assert set(ours.split(b"\0")) == {path or b"/" for path in theirs.split(b"\0")[:-1]} | {b""}


def test_cat_gives_the_bytes_of_each_file(tricky: User, unpacked: Path) -> None:
    files = [path for path in sorted(below(unpacked)) if len(path) < 256 and path.isascii() and path.endswith(b"e")]
    files = [path for path in files if stat.S_ISREG(os.lstat(os.fsencode(unpacked) + path).st_mode)]
    assert files
    for path in files[:8]:
        out = tricky.run(["ufs", "cat", f"tricky:{os.fsdecode(path)}"], check=True, text=False).stdout
        assert out == Path(os.fsdecode(os.fsencode(unpacked) + path)).read_bytes()


MISTAKES = {
    "tricky:/nope": "tricky:/nope: No such file or directory",
    "tricky:/": "tricky:/ is a directory",
    "nope:/x": "no image 'nope'",
    "tricky": "say which file",
}


@pytest.mark.parametrize("place", MISTAKES)
def test_what_cannot_be_read_is_one_line(tricky: User, place: str) -> None:
    done = tricky.run(["ufs", "cat", place])
    assert done.returncode != 0
    assert MISTAKES[place] in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_links_are_followed_within_the_image_only(root_user: User, tmp_path: Path) -> None:
    files: archives.Files = {}
    links = {"out": "/etc/os-release", "up": "../../../etc/os-release", "loop": "loop"}
    out = archives.layer({"etc/os-release": "inside\n"}, links)
    archive = archives.layout(files, [archives.named(archives.image(files, [out]), "links:1")])
    root_user.run(["ufs", "load", archive_of(archive, tmp_path)], check=True)
    for name in ("out", "up"):
        assert root_user.run(["ufs", "cat", f"links:1:/{name}"], check=True).stdout == "inside\n"
    assert "Too many levels" in root_user.run(["ufs", "cat", "links:1:/loop"]).stderr


def test_ls_and_layers_say_where_things_come_from(root_user: User, tmp_path: Path) -> None:
    """Three layers: one adds, one changes and hides, one adds again."""
    files: archives.Files = {}
    layers = [
        archives.layer({"etc/kept": "1", "etc/changed": "12345", "etc/gone": "123"}),
        archives.layer({"etc/changed": "1234567", "etc/.wh.gone": ""}),
        archives.layer({"etc/new": "12"}),
    ]
    archive = archives.layout(files, [archives.named(archives.image(files, layers), "stack:1")])
    root_user.run(["ufs", "load", archive_of(archive, tmp_path)], check=True)
    listed = root_user.run(["ufs", "ls", "--layer", "stack:1:/etc"], check=True).stdout.split()
    assert listed == ["#1", "changed", "#0", "kept", "#2", "new"]
    rows = json.loads(root_user.run(["ufs", "layers", "--json", "stack:1"], check=True).stdout)
    facts = [tuple(row[key] for key in ("added", "changed", "hidden", "bytes", "hidden_bytes")) for row in rows]
    assert facts == [(4, 0, 0, 9, 8), (0, 1, 1, 7, 0), (1, 0, 0, 2, 0)]
    lines = root_user.run(["ufs", "layers", "stack:1"], check=True).stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == [archives.digest(layer)[:12] for layer in reversed(layers)]


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_what_save_writes_podman_and_skopeo_read(tricky: User, tmp_path: Path, form: str) -> None:
    tricky.run(["ufs", "tag", "tricky", "other:2"], check=True)
    archive = tricky.temp / "two.tar"
    tricky.run(["ufs", "save", "-q", "--format", form, "-o", archive, "tricky", "other:2"], check=True)
    again = tricky.run(["ufs", "save", "--format", form, "tricky", "other:2"], check=True, text=False).stdout
    assert again == archive.read_bytes()
    identity = json.loads(tricky.run(["ufs", "images", "--json"], check=True).stdout)[0]["id"]
    source = f"{form}:{archive}:other:2" if form == "docker-archive" else f"{form}:{archive}:2"
    config = subprocess.run(["skopeo", "inspect", "--config", "--raw", source], check=True, capture_output=True).stdout
    assert f"sha256:{archives.digest(config)}" == identity


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_what_save_writes_podman_loads(root_user: User, images: Images, form: str) -> None:
    root_user.run(["ufs", "load", images.path("busybox", "docker.tar")], check=True)
    identity = root_user.run(["ufs", "images", "-q"], check=True).stdout.strip()
    root_user.run(["ufs", "tag", identity, "localhost/saved:1"], check=True)
    archive = root_user.temp / "one.tar"
    root_user.run(["ufs", "save", "-q", "--format", form, "-o", archive, "localhost/saved:1"], check=True)
    podman = {"STORAGE_DRIVER": "vfs"}
    root_user.run(["podman", "load", "-q", "-i", archive], check=True, env=podman)
    assert root_user.run(["podman", "images", "-q"], check=True, env=podman).stdout.strip() == identity
    root_user.run(["podman", "rmi", "-af"], check=True, env=podman)


def test_a_store_that_is_damaged_is_named_and_what_is_derived_is_mended(tricky: User) -> None:
    assert tricky.run(["ufs", "fsck", "-q"], check=True).stdout == ""
    layer = max((tricky.store / "layers").iterdir(), key=lambda path: path.stat().st_size)
    with layer.open("r+b") as file:
        file.seek(600)
        file.write(b"\xff")
    next((tricky.store / "images").iterdir()).unlink()
    found = tricky.run(["ufs", "fsck", "-q"])
    assert found.returncode == 1
    assert f"{layer}: does not match its digest" in found.stdout
    assert ".index: is missing" in found.stdout
    assert "All of it is mended" in tricky.run(["ufs", "fsck", "-q", "--repair"], check=True).stdout
    tricky.run(["ufs", "fsck", "-q"], check=True)


def test_a_damaged_blob_of_a_loaded_image_is_not_mended_but_said(tricky: User) -> None:
    blob = max((tricky.store / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    with blob.open("r+b") as file:
        file.write(b"\xff")
    done = tricky.run(["ufs", "fsck", "-q", "--repair"])
    assert done.returncode == 1
    assert f"{blob}: not mended" in done.stderr


def test_df_counts_what_is_on_the_disk(tricky: User) -> None:
    rows = {row["kind"]: row for row in json.loads(tricky.run(["ufs", "df", "--json"], check=True).stdout)}
    names = ("blobs/sha256", "layers", "images")
    files = {path.stat().st_ino: path.stat().st_blocks for name in names for path in (tricky.store / name).iterdir()}
    assert rows["Images"]["size"] == 512 * sum(files.values())
    assert rows["Images"]["reclaimable"] == rows["Images"]["size"]
    assert rows["Unneeded"]["total"] == 0


def test_history_and_tags(tricky: User, images: Images) -> None:
    steps = json.loads(tricky.run(["ufs", "history", "--json", "tricky"], check=True).stdout)
    theirs = json.loads(
        subprocess.run(
            ["skopeo", "inspect", "--config", f"oci-archive:{images.path('tricky', 'gzip.oci.tar')}"],
            check=True, capture_output=True,
        ).stdout
    )["history"]  # fmt: skip
    assert [step["created_by"] for step in steps] == [step.get("created_by", "") for step in reversed(theirs)]
    tricky.run(["ufs", "tag", "tricky", "registry.example/me/tool:7"], check=True)
    listed = tricky.run(["ufs", "images"], check=True).stdout
    assert "registry.example/me/tool\t7" in listed
    assert tricky.run(["ufs", "tag", "tricky", "Bad Name"]).returncode != 0
