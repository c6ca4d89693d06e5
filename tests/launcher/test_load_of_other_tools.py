"""What other tools write: their names and tags, fields that are null or absent, media types, compressions, layouts."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from launcher.image.load import Loaded, load
from launcher.image.oci import ImageConfig, Platform
from launcher.image.resolve import resolve
from launcher.image.store import Store
from tests.images import Images, tools
from tests.launcher import archives
from tests.launcher.archives import FIRST, SECOND, Files
from tests.launcher.test_load import check_image, content


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def loaded(store: Store, path: Path, files: Files, links: dict[str, str] | None = None) -> list[Loaded]:
    """Load an archive, and see that each image is listed and can be resolved by its id."""
    path.write_bytes(archives.tar(files, links))
    found = load(str(path), store)
    listed = {record.image for record in store.records()}
    for image in found:
        assert image.image in listed
        assert resolve(image.image[:12], store).id == image.image
        for name in image.names:
            assert resolve(name, store).id == image.image
    assert os.listdir(store.path("tmp")) == []
    return found


def names(found: list[Loaded]) -> list[list[str]]:
    return [image.names for image in found]


def dotted(files: Files) -> Files:
    """With ./ before every name, of members and in manifest.json."""
    entry = json.loads(files.pop("manifest.json"))[0]
    entry |= {"Config": "./" + entry["Config"], "Layers": ["./" + name for name in entry["Layers"]]}
    return {f"./{name}": data for name, data in files.items()} | {"./manifest.json": archives.dumps([entry])}


def test_dots_before_every_name(store: Store, tmp_path: Path) -> None:
    loaded(store, tmp_path / "image.tar", dotted(archives.docker()))
    check_image(store)


def test_dots_in_manifest_json_alone(store: Store, tmp_path: Path) -> None:
    files = archives.docker()
    loaded(store, tmp_path / "image.tar", files | {"manifest.json": dotted(dict(files))["./manifest.json"]})
    check_image(store)


@pytest.mark.parametrize("target", ["../1.tar", "./../1.tar", "/1.tar", "../../../1.tar"])
def test_a_layer_that_is_a_link_to_a_file_at_the_top(store: Store, tmp_path: Path, target: str) -> None:
    files = archives.docker()
    files["1.tar"] = files.pop("a/layer.tar")
    loaded(store, tmp_path / "image.tar", files, {"a/layer.tar": target})
    check_image(store)


def docker_25(*, annotations: dict[str, str], tags: Any, listed: bool = True) -> Files:
    """A layout with a manifest.json of its own, as docker save writes since version 25."""
    files: Files = {}
    entry = archives.image(files, [FIRST, SECOND]) | {"annotations": annotations}
    config = archives.digest(archives.config([FIRST, SECOND]))
    layers = [f"blobs/sha256/{archives.digest(data)}" for data in (FIRST, SECOND)]
    archives.layout(files, [entry] if listed else [])
    manifest = [{"Config": f"blobs/sha256/{config}", "RepoTags": tags, "Layers": layers}]
    return files | {"manifest.json": archives.dumps(manifest)}


DOCKER_25: dict[str, tuple[Files, list[str]]] = {
    "a tag alone": (docker_25(annotations={archives.REF_NAME: "1"}, tags=["box:1"]), ["docker.io/library/box:1"]),
    "latest": (docker_25(annotations={archives.REF_NAME: "latest"}, tags=["box:1"]), ["docker.io/library/box:1"]),
    "no annotation": (docker_25(annotations={}, tags=["me/a:1", "q.io/b"]), ["docker.io/me/a:1", "q.io/b:latest"]),
    "no tags": (docker_25(annotations={archives.REF_NAME: "box:1"}, tags=None), ["docker.io/library/box:1"]),
    "no names at all": (docker_25(annotations={}, tags=None), []),
    "an empty index": (docker_25(annotations={}, tags=["box:1"], listed=False), ["docker.io/library/box:1"]),
}  # fmt: skip


@pytest.mark.parametrize("case", DOCKER_25)
def test_names_are_those_of_manifest_json_beside_a_layout(store: Store, tmp_path: Path, case: str) -> None:
    files, expected = DOCKER_25[case]
    assert names(loaded(store, tmp_path / "mine.tar", files)) == [expected]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["<none>:<none>"], []),
        ([""], []),
        (None, []),
        ([], []),
        ([None, 5, {}], []),
        (5, []),
        ("box:1", ["docker.io/library/box:1"]),
        (["../../etc:x", "Box:1", "box:a+b", "box:1"], ["docker.io/library/box:1"]),
    ],
)
def test_repo_tags_that_are_no_names(store: Store, tmp_path: Path, tags: Any, expected: list[str]) -> None:
    files = archives.docker()
    entry = json.loads(files["manifest.json"])[0] | {"RepoTags": tags}
    files["manifest.json"] = archives.dumps([entry])
    found = loaded(store, tmp_path / "image.tar", files)
    assert names(found) == [expected]
    check_image(store, found[0].image)


REF_NAMES = {
    "1.0.0+git1530.gad89": [],
    "MyTag": ["docker.io/library/mine:MyTag"],
    "stable-RC1": ["docker.io/library/mine:stable-RC1"],
    "Some/Path:x": [],
    "a b": [],
    "x" * 600: [],
    "v1.2.3": ["docker.io/library/mine:v1.2.3"],
    "sha256:" + "a" * 64: [],
    "b" * 64: ["docker.io/library/mine:" + "b" * 64],
    "tool": ["docker.io/library/tool:latest"],
    "quay.io/a/b:c": ["quay.io/a/b:c"],
}


@pytest.mark.parametrize("title", REF_NAMES)
def test_titles_in_layouts(store: Store, tmp_path: Path, title: str) -> None:
    files: Files = {}
    entry = archives.named(archives.image(files, [FIRST]), title)
    assert names(loaded(store, tmp_path / "mine.tar", archives.layout(files, [entry]))) == [REF_NAMES[title]]


def test_no_image_is_lost_because_of_its_name(store: Store, tmp_path: Path) -> None:
    """Titles that are no names, equal ones, none: each image is there. Those of one title for two machines are one."""
    files: Files = {}
    entries = []
    amd64 = {"platform": {"os": "linux", "architecture": "amd64"}}
    for number, (title, more) in enumerate(
        [("1+a", amd64), ("1+b", amd64), ("twice:1", amd64), ("twice:1", amd64), ("", amd64), ("", amd64), ("x:1", {})]
    ):
        image = archives.image(files, [archives.layer({"n": str(number)})]) | more
        entries.append(archives.named(image, title) if title else image)
    arm = {"platform": {"os": "linux", "architecture": "arm64"}}
    for more in (amd64, arm):
        layers = [archives.layer({"n": str(more)})]
        image = archives.image(files, layers, architecture=more["platform"]["architecture"]) | more
        entries.append(archives.named(image, "both:1"))
    found = loaded(store, tmp_path / "mine.tar", archives.layout(files, entries))
    assert len({image.image for image in found}) == 8
    assert names(found) == [[], [], ["docker.io/library/twice:1"], [], [], [], ["docker.io/library/x:1"],
                            ["docker.io/library/both:1"]]  # fmt: skip


def test_names_that_another_tool_put_into_the_store(store: Store, tmp_path: Path) -> None:
    loaded(store, tmp_path / "image.tar", archives.oci(name="other:1"))
    for title in ("MyTag", "1.0+git", "box:1"):
        tools.convert(f"oci-archive:{tmp_path}/image.tar:other:1", f"oci:{store.root}:{title}")
    check_image(store)
    assert sorted({record.name for record in store.records()}) == [
        "", "docker.io/library/box:1", "docker.io/library/other:1",
    ]  # fmt: skip


def configured(**inner: Any) -> Files:
    files: Files = {}
    return archives.layout(files, [archives.named(archives.image(files, [FIRST], config=inner), "box:1")])


CONFIGS: dict[str, tuple[dict[str, Any], Callable[[ImageConfig], object], object]] = {
    "Entrypoint as a string": ({"Entrypoint": "/bin/run it"}, lambda c: c.entrypoint, ["/bin/run it"]),
    "Cmd as a string": ({"Cmd": "sh"}, lambda c: c.cmd, ["sh"]),
    "an empty string": ({"Entrypoint": "", "Cmd": "sh"}, lambda c: (c.entrypoint, c.cmd), ([], ["sh"])),
    "a list of an empty string": ({"Entrypoint": [""], "Cmd": ["sh"]}, lambda c: (c.entrypoint, c.cmd), ([], ["sh"])),
    "an empty word": ({"Cmd": ["echo", "", "x"]}, lambda c: c.cmd, ["echo", "", "x"]),
    "null in a list": ({"Cmd": ["echo", None]}, lambda c: c.cmd, ["echo", ""]),
    "null in a map": ({"Labels": {"a": None}}, lambda c: c.labels, {"a": ""}),
    "lists for maps": ({"Volumes": ["/a"], "ExposedPorts": []}, lambda c: (c.volumes, c.exposed_ports), (["/a"], [])),
    "empty maps": ({"ExposedPorts": {}, "Volumes": {}}, lambda c: (c.exposed_ports, c.volumes), ([], [])),
    "keys in another case": ({"cmd": ["a"], "workingdir": "/x"}, lambda c: (c.cmd, c.working_dir), (["a"], "/x")),
    "half a character": ({"Labels": {"a": "x\ud800y"}, "User": "\udfff"}, lambda c: (c.labels, c.user),
                         ({"a": "x\ufffdy"}, "\ufffd")),
    "an empty string in Env": ({"Env": ["", "A=b"]}, lambda c: c.env, ["", "A=b"]),
}  # fmt: skip


def test_a_config_of_nulls(store: Store, tmp_path: Path) -> None:
    fields = "Entrypoint Cmd Env User WorkingDir StopSignal ExposedPorts Volumes Labels Healthcheck OnBuild Shell"
    config = loaded(store, tmp_path / "image.tar", configured(**dict.fromkeys(fields.split())))[0].config
    assert config == ImageConfig(Platform("linux", "amd64"), [archives.digest(FIRST)])


@pytest.mark.parametrize("case", CONFIGS)
def test_configs(store: Store, tmp_path: Path, case: str) -> None:
    inner, get, expected = CONFIGS[case]
    assert get(loaded(store, tmp_path / "image.tar", configured(**inner))[0].config) == expected


@pytest.mark.parametrize("fields", [["config"], ["architecture", "os"], ["created", "history", "variant"]])
def test_null_at_the_top_of_a_config(store: Store, tmp_path: Path, fields: list[str]) -> None:
    files: Files = {}
    entry = archives.image(files, [FIRST, SECOND], **dict.fromkeys(fields))
    loaded(store, tmp_path / "image.tar", archives.layout(files, [archives.named(entry, "box:1")]))
    with closing(resolve("box:1", store).open_tree()) as tree:
        assert content(tree, "etc/shared") == b"second"


def test_bytes_that_are_no_text_in_a_config(store: Store, tmp_path: Path) -> None:
    config = archives.config([FIRST], config={"Labels": {"a": "x@y"}}).replace(b"@", b"\xff")
    entry = {"Config": "config.json", "RepoTags": None, "Layers": ["1.tar"]}
    files = {"config.json": b"\xef\xbb\xbf" + config, "1.tar": FIRST, "manifest.json": archives.dumps([entry])}
    assert loaded(store, tmp_path / "image.tar", files)[0].config.labels == {"a": "x\ufffdy"}


def changed(change: Callable[[dict[str, Any]], object]) -> Files:
    return archives.oci("+gzip", manifest=change)


def entry_of(files: Files, change: Callable[[dict[str, Any]], object]) -> Files:
    top = json.loads(files["index.json"])
    change(top["manifests"][0])
    return files | {"index.json": archives.dumps(top)}


def typed(layer: str) -> Files:
    return changed(lambda m: [item.update(mediaType=layer) for item in m["layers"]])


DOCUMENTS: dict[str, Files] = {
    "index without schemaVersion": archives.oci() | {
        "index.json": archives.oci()["index.json"].replace(b'"schemaVersion": 2, ', b"")},
    "index without oci-layout": {name: data for name, data in archives.oci().items() if name != "oci-layout"},
    "entry without mediaType": entry_of(archives.oci(), lambda entry: entry.pop("mediaType")),
    "entry with mediaType null": entry_of(archives.oci(), lambda entry: entry.update(mediaType=None)),
    "entry of application/json": entry_of(archives.oci(), lambda entry: entry.update(mediaType="application/json")),
    "entry with annotations that are no strings": entry_of(
        archives.oci(), lambda entry: entry["annotations"].update(a=None, b=5, c=["x"])),
    "entry with everything null": entry_of(archives.oci(), lambda entry: entry.update(platform=None, urls=None)),
    "manifest without schemaVersion": changed(lambda m: m.pop("schemaVersion")),
    "manifest without mediaType": entry_of(changed(lambda m: m.pop("mediaType")), lambda entry: entry.pop("mediaType")),
    "config of application/octet-stream": changed(lambda m: m["config"].update(mediaType="application/octet-stream")),
    "config without mediaType": changed(lambda m: m["config"].pop("mediaType")),
    "layers without mediaType": changed(lambda m: [item.pop("mediaType") for item in m["layers"]]),
    "layers of application/octet-stream": typed("application/octet-stream"),
    "layers of the first schema 2": typed("application/vnd.docker.container.image.rootfs.diff+x-gtar"),
    "foreign layers": typed("application/vnd.docker.image.rootfs.foreign.diff.tar"),
    "layers of a compression that is not theirs": typed("application/vnd.oci.image.layer.v1.tar+zstd"),
    "layers of x-tar": typed("application/x-tar"),
}  # fmt: skip


@pytest.mark.parametrize("case", DOCUMENTS)
def test_documents(store: Store, tmp_path: Path, case: str) -> None:
    loaded(store, tmp_path / "image.tar", DOCUMENTS[case])
    check_image(store)


def test_an_index_without_a_media_type(store: Store, tmp_path: Path) -> None:
    files: Files = {}
    inner = archives.blob(files, archives.dumps({"manifests": [archives.image(files, [FIRST, SECOND])]}))
    del inner["mediaType"]
    loaded(store, tmp_path / "image.tar", archives.layout(files, [archives.named(inner, "box:1")]))
    check_image(store)


def test_what_is_no_image_is_passed_over_beside_one(store: Store, tmp_path: Path) -> None:
    files = archives.oci()
    chart = archives.image(files, [FIRST], manifest=lambda m: m["config"].update(mediaType="application/vnd.x.config"))
    entries = [chart, archives.blob(files, b"<html>", "text/html"), *json.loads(files["index.json"])["manifests"]]
    assert len(loaded(store, tmp_path / "image.tar", archives.layout(files, entries))) == 1
    check_image(store)


@pytest.mark.parametrize("whole", ["xz", "bzip2"])
@pytest.mark.parametrize("kind", ["docker", "oci"])
def test_xz_and_bzip2(store: Store, tmp_path: Path, kind: str, whole: str) -> None:
    """Of the archive and, in two streams, of its layers; the store keeps those as other tools can read them."""
    compress = archives.WHOLE[whole]
    if kind == "docker":
        files = archives.docker() | {"b/layer.tar": compress(SECOND[:999]) + compress(SECOND[999:])}
    else:
        files = {}
        entry = archives.image(files, [FIRST, SECOND])
        manifest = json.loads(files[f"blobs/sha256/{entry['digest'][7:]}"])
        manifest["layers"][1] = archives.blob(files, compress(SECOND), f"{archives.LAYER_TYPE}+{whole}")
        entry = archives.blob(files, archives.dumps(manifest), archives.MANIFEST_TYPE)
        archives.layout(files, [archives.named(entry, "box:1")])
    (tmp_path / "image.tar").write_bytes(compress(archives.tar(files)))
    for _ in range(2):
        load(str(tmp_path / "image.tar"), store)
        check_image(store)
    if kind == "docker":
        unpack = ["umoci", "unpack", *tools.rootless(), "--image", f"{store.root}:docker.io/library/box:1"]
        subprocess.run([*unpack, tmp_path / "bundle"], check=True, capture_output=True)
        assert (tmp_path / "bundle/rootfs/etc/shared").read_text() == "second"


@pytest.mark.parametrize("form", ["gzip.oci", "zstd.oci", "plain.oci"])
def test_a_dir_of_skopeo(images: Images, store: Store, tmp_path: Path, form: str) -> None:
    layout = images.built("busybox") / form
    tools.convert(f"oci:{layout}:busybox", f"dir:{tmp_path}/dir")
    image = load(str(tmp_path / "dir"), store)[0]
    assert image.config.env[1] == "GREETING=hello"
    load(str(layout), store)
    assert {record.image for record in store.records()} == {image.image}
    before = Path(store.path("index.json")).stat().st_ino
    assert resolve(str(tmp_path / "dir"), store).id == image.image
    resolve(str(tmp_path / "dir"), store)
    assert Path(store.path("index.json")).stat().st_ino != before  # by its path it was new, once
    (tmp_path / "dir.tar").write_bytes(b"")
    subprocess.run(["tar", "-cf", tmp_path / "dir.tar", "-C", tmp_path / "dir", "."], check=True)
    assert load(str(tmp_path / "dir.tar"), store)[0].image == image.image


def test_a_dir_of_several_platforms(store: Store, tmp_path: Path) -> None:
    files: Files = {}
    inner = [
        archives.image(files, [FIRST, SECOND], architecture=name) | {"platform": {"os": "linux", "architecture": name}}
        for name in ("arm64", "amd64", "s390x")
    ]
    files = {name.removeprefix("blobs/sha256/"): data for name, data in files.items()}
    for one in inner:
        files[f"{one['digest'][7:]}.manifest.json"] = files.pop(one["digest"][7:])
    top = {"schemaVersion": 2, "mediaType": archives.INDEX_TYPE, "manifests": inner}
    files |= {"manifest.json": archives.dumps(top), "version": b"Directory Transport Version: 1.1\n"}
    image = load(str(archives.write(files, tmp_path / "dir")), store)[0]
    assert str(image.config.platform) == "linux/amd64"
    check_image(store, image.image)


def test_a_docker_archive_that_was_unpacked(store: Store, tmp_path: Path) -> None:
    load(str(archives.write(archives.docker("+gzip"), tmp_path / "unpacked")), store)
    check_image(store)
    assert resolve(str(tmp_path / "unpacked"), store).id
