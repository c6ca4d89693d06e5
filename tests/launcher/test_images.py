"""`ufs images` and its neighbours: Docker's columns, filters and templates; what is no image beside what is one."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.images import Images
from tests.launcher import archives
from tests.launcher.test_looking_inside import archive_of
from tests.support.users import User

pytestmark = pytest.mark.only_root

Maker = Callable[[Path], object]
TYPE = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture
def several(root_user: User, tmp_path: Path) -> User:
    """old:1 and old:2 (one image), new:1 of a registry, and one without a name; each made a year after the other."""
    files: archives.Files = {}
    made = [
        archives.image(
            files, [archives.FIRST], created=f"20{year}-05-01T00:00:00Z", config={"Cmd": ["x"], "Labels": labels}
        )
        for year, labels in ((21, {"stage": "build", "team": "a"}), (22, {"stage": "run"}), (23, {}))
    ]
    entries = [archives.named(made[0], "old:1"), archives.named(made[0], "old:2")]
    entries += [archives.named(made[1], "registry.example/me/new:1"), made[2]]
    root_user.run(["ufs", "load", archive_of(archives.layout(files, entries), tmp_path)], check=True)
    return root_user


FILTERS = [
    (["reference=old"], ["old:1", "old:2"]),
    (["reference=o*:2"], ["old:2"]),
    (["reference=*new*"], []),  # a star stops at a slash
    (["reference=registry.example/*/n?w"], ["registry.example/me/new:1"]),
    (["reference=old:[^1]"], ["old:2"]),
    (["reference=old:1", "reference=*/*/new"], ["old:1", "registry.example/me/new:1"]),
    (["before=registry.example/me/new:1"], ["old:1", "old:2"]),
    (["since=old:1"], ["<none>:<none>", "registry.example/me/new:1"]),
    (["since=old:1", "dangling=false"], ["registry.example/me/new:1"]),
    (["dangling=true"], ["<none>:<none>"]),
    (["label=stage"], ["old:1", "old:2", "registry.example/me/new:1"]),
    (["label=stage=run"], ["registry.example/me/new:1"]),
    (["label=stage=build", "label=team=a"], ["old:1", "old:2"]),
    (["label=stage=build", "label=team=b"], []),
    (["until=2021-06-01T00:00:00Z"], ["old:1", "old:2"]),
]


def test_filters_are_those_of_docker(several: User) -> None:
    for words, expected in FILTERS:
        options = [part for word in words for part in ("--filter", word)]
        done = several.run(["ufs", "images", *options, "--format", "{{.Repository}}:{{.Tag}}"], check=True)
        assert sorted(done.stdout.split()) == expected, words
    for wrong in ("reference", "nope=1", "dangling=maybe", "before=nothing-like-it", "until=never"):
        done = several.run(["ufs", "images", "--filter", wrong])
        assert done.returncode == 1, wrong
        assert done.stderr.count("\n") == 1, done.stderr


def test_columns_and_templates(several: User) -> None:
    listed = [line.split("\t") for line in several.run(["ufs", "images", "--digests"], check=True).stdout.splitlines()]
    assert [line[:2] for line in listed] == [
        ["<none>", "<none>"], ["registry.example/me/new", "1"], ["old", "1"], ["old", "2"],
    ]  # fmt: skip
    assert all(line[2].startswith("sha256:") and len(line) == 6 for line in listed)
    table = several.run(["ufs", "images", "--format", "table {{.Repository}}\t{{.Size}}", "old"], check=True).stdout
    assert [line.split() for line in table.splitlines()] == [
        ["REPOSITORY", "SIZE"],
        ["old", "10.2kB"],
        ["old", "10.2kB"],
    ]
    rows = several.run(["ufs", "images", "--format", "json", "--no-trunc", "old:1"], check=True).stdout.splitlines()
    (row,) = map(json.loads, rows)
    assert (row["Repository"], row["Tag"], row["Containers"], len(row["ID"])) == ("old", "1", "0", 71)
    assert row["CreatedAt"].startswith("2021-05-01")
    history = several.run(["ufs", "history", "--format", "{{.Size}}|{{.Comment}}", "old:1"], check=True)
    assert history.stdout == ""  # it has none
    kinds = several.run(["ufs", "df", "--format", "{{.Type}}={{.TotalCount}}"], check=True).stdout.splitlines()
    assert kinds[0] == "Images=3"
    assert "no field" in several.run(["ufs", "images", "--format", "{{.Nope}}"]).stderr


def test_prune_all_takes_what_no_container_uses(several: User, images: Images) -> None:
    several.run(["ufs", "load", images.path("busybox", "docker.tar")], check=True)
    several.run(["ufs", "create", "--name", "kept", "busybox", "true"], check=True)
    done = several.run(["ufs", "prune", "-a", "-f", "--filter", "until=2022-01-01T00:00:00Z"], check=True)
    assert done.stdout.splitlines()[:2] == ["Untagged: old:1", "Untagged: old:2"]
    assert several.run(["ufs", "prune", "-a"], input="n\n").returncode != 0
    several.run(["ufs", "prune", "-af"], check=True)
    left = several.run(["ufs", "images", "--format", "{{.Repository}} {{.Containers}}"], check=True).stdout.split()
    assert left == ["localhost/busybox", "1"]
    assert several.run(["ufs", "start", "-a", "kept"]).returncode == 0


def test_rmi_leaves_layers_where_asked(several: User) -> None:
    several.run(["ufs", "rmi", "--no-prune", "registry.example/me/new:1"], check=True)
    assert several.run(["ufs", "prune"], check=True).stdout != "Freed 0B\n"


def add(store: Path, entry: object) -> None:
    """As a tool that knows OCI layouts and nothing of us."""
    index = json.loads((store / "index.json").read_text())
    index["manifests"].append(entry)
    (store / "index.json").write_text(json.dumps(index))


def test_what_skopeo_copies_into_the_store_runs_and_stays(root_user: User, images: Images) -> None:
    root_user.run(["ufs", "load", images.path("tricky", "docker.tar")], check=True)
    source = f"docker-archive:{images.path('busybox', 'docker.tar')}"
    for name in ("box:1", "box:1", "registry.example/box:2"):
        root_user.run(["skopeo", "copy", "-q", source, f"oci:{root_user.store}:{name}"], check=True)
    listed = root_user.run(["ufs", "images", "--format", "{{.Repository}}:{{.Tag}}"], check=True).stdout.split()
    assert {"box:1", "registry.example/box:2"} < set(listed)
    assert len(listed) == 3
    assert root_user.run(["ufs-run", "--rm", "box:1", "echo", "hi"], check=True).stdout == "hi\n"
    root_user.run(["ufs", "prune"], check=True)
    root_user.run(["ufs", "tag", "box:1", "box:3"], check=True)
    assert root_user.run(["ufs-run", "--rm", "box:3", "echo", "hi"], check=True).stdout == "hi\n"
    assert root_user.run(["ufs", "fsck", "-q"], check=True).stdout == ""
    root_user.run(["skopeo", "inspect", f"oci:{root_user.store}:registry.example/box:2"], check=True)


def foreign_index(store: Path) -> dict[str, object]:
    """An index of two platforms, one of them this machine's, put into a store as skopeo copy --all does."""
    files: archives.Files = {}
    here = archives.image(files, [archives.FIRST, archives.SECOND], "+gzip")
    there = archives.image(files, [archives.FIRST], "+gzip", architecture="s390x")
    entries = [
        here | {"platform": {"os": "linux", "architecture": "amd64"}},
        there | {"platform": {"os": "linux", "architecture": "s390x"}},
    ]
    document = archives.dumps({"schemaVersion": 2, "mediaType": archives.INDEX_TYPE, "manifests": entries})
    top = archives.blob(files, document, archives.INDEX_TYPE)
    archives.write(files, store)
    return archives.named(top, "many:1")


def test_an_index_of_several_platforms_is_this_machines_image_and_keeps_the_others(several: User) -> None:
    top = foreign_index(several.store)
    add(several.store, top)
    assert several.run(["ufs", "cat", "many:1:/etc/two"], check=True).stdout == "2"
    several.run(["ufs", "tag", "old:1", "old:3"], check=True)  # index.json is written anew
    several.run(["ufs", "prune"], check=True)
    raw = subprocess.run(
        ["skopeo", "inspect", "--raw", f"oci:{several.store}:docker.io/library/many:1"], capture_output=True, check=True
    ).stdout
    assert "sha256:" + archives.digest(raw) == top["digest"]
    blobs = several.store / "blobs/sha256"
    for entry in json.loads(raw)["manifests"]:
        manifest = json.loads((blobs / entry["digest"][7:]).read_text())
        assert all((blobs / layer["digest"][7:]).exists() for layer in manifest["layers"])
    several.run(["ufs", "rmi", "many:1"], check=True)
    assert not (blobs / str(top["digest"])[7:]).exists()


def artifact(store: Path) -> dict[str, object]:
    files: archives.Files = {}
    config = archives.blob(files, b"{}", "application/vnd.oci.empty.v1+json")
    chart = archives.blob(files, b"chart", "application/vnd.cncf.helm.chart.content.v1.tar+gzip")
    document = {"schemaVersion": 2, "mediaType": TYPE, "artifactType": "a/b", "config": config, "layers": [chart]}
    top = archives.blob(files, archives.dumps(document), TYPE)
    archives.write(files, store)
    return archives.named(top, "chart:1")


def elsewhere(store: Path) -> dict[str, object]:
    """An index for another machine alone."""
    files: archives.Files = {}
    there = archives.image(files, [archives.FIRST], "+gzip", architecture="s390x")
    one = there | {"platform": {"os": "linux", "architecture": "s390x"}}
    document = archives.dumps({"schemaVersion": 2, "mediaType": archives.INDEX_TYPE, "manifests": [one]})
    top = archives.blob(files, document, archives.INDEX_TYPE)
    archives.write(files, store)
    return archives.named(top, "there:1")


def sparse(store: Path) -> dict[str, object]:
    """An index that names this machine's and has it not."""
    files: archives.Files = {}
    here = MISSING | {"platform": {"os": "linux", "architecture": "amd64"}}
    document = archives.dumps({"schemaVersion": 2, "mediaType": archives.INDEX_TYPE, "manifests": [here]})
    top = archives.blob(files, document, archives.INDEX_TYPE)
    archives.write(files, store)
    return archives.named(top, "sparse:1")


def huge(store: Path) -> dict[str, object]:
    """A manifest of 100 MB."""
    path = store / "blobs/sha256" / ("c" * 64)
    path.touch()
    os.truncate(path, 100 << 20)
    return {"mediaType": TYPE, "digest": "sha256:" + "c" * 64, "size": 100 << 20}


def deep(store: Path) -> dict[str, object]:
    """Indexes in indexes."""
    files: archives.Files = {}
    top = archives.image(files, [archives.FIRST])
    for _ in range(20):
        document = {"schemaVersion": 2, "mediaType": archives.INDEX_TYPE, "manifests": [top]}
        top = archives.blob(files, archives.dumps(document), archives.INDEX_TYPE)
    archives.write(files, store)
    return top


def garbage(store: Path) -> dict[str, object]:
    files: archives.Files = {}
    top = archives.blob(files, b"\x1b[2Jno document", TYPE)
    archives.write(files, store)
    return archives.named(top, "bad:1")


MISSING = {"mediaType": TYPE, "digest": "sha256:" + "a" * 64, "size": 5}
DAMAGED: list[Maker] = [
    lambda store: archives.named(MISSING, "gone:1"),
    garbage,
    huge,
    deep,
    lambda store: 5,
    lambda store: MISSING | {"digest": "sha256:../../../etc/passwd"},
    lambda store: archives.named(MISSING, "\x1b]0;x\x07"),
]


NO_IMAGES: list[Maker] = [artifact, elsewhere, sparse]


@pytest.mark.parametrize("makers", [NO_IMAGES, DAMAGED], ids=["no images", "damaged"])
def test_entries_that_are_no_image_leave_the_others_alone(several: User, makers: list[Maker]) -> None:
    entries = [make(several.store) for make in makers]
    for entry in entries:
        add(several.store, entry)
    for command in ("images -a", "ls old:1", "tag old:1 more:1", "df", "prune", "rmi more:1"):
        done = several.run(["ufs", *command.split()], check=True)
        assert not any(sign in done.stdout + done.stderr for sign in "\x1b\x07"), command
    kept = json.loads((several.store / "index.json").read_text())["manifests"]
    assert all(entry in kept for entry in entries)
    if makers is NO_IMAGES:
        assert several.run(["ufs", "fsck", "-q"], check=True).stdout == ""
        assert (several.store / "blobs/sha256" / archives.digest(b"chart")).exists(), "what an artifact leads to"
        return
    done = several.run(["ufs", "fsck", "-q"])
    assert (done.returncode, done.stdout.count(" is no image: ")) == (1, len(makers))
    several.run(["ufs", "fsck", "-q", "--repair"], check=True)
    assert several.run(["ufs", "fsck", "-q"], check=True).stdout == ""
    assert len(several.run(["ufs", "images"], check=True).stdout.splitlines()) == 4


def test_an_image_whose_config_is_gone_is_shown_and_can_be_removed(several: User) -> None:
    identity = several.run(["ufs", "images", "-q", "--no-trunc", "old:1"], check=True).stdout.strip()[7:]
    (several.store / "blobs/sha256" / identity).unlink()
    done = several.run(["ufs", "images"], check=True)
    assert len(done.stdout.splitlines()) == 4
    assert "is damaged: ufs fsck says more" in done.stderr
    for command in (["prune"], ["df"], ["ls", "registry.example/me/new:1"]):
        several.run(["ufs", *command], check=True)
    assert several.run(["ufs", "ls", "old:1"]).stderr.count("\n") == 1
    several.run(["ufs", "rmi", "-f", identity[:12]], check=True)
    assert several.run(["ufs", "images"], check=True).stderr == ""
