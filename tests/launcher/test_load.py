"""Loading: every kind of archive, what ends up in the store, and what is not done twice."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from launcher.errors import UfsError
from launcher.image.load import load
from launcher.image.oci import Platform
from launcher.image.remove import prune
from launcher.image.resolve import StoredImage, resolve
from launcher.image.store import Store
from tests.launcher import archives
from unionfs.tree import ROOT, Tree


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def content(tree: Tree, path: str) -> bytes:
    node = ROOT
    for name in path.split("/"):
        node = tree.lookup(node, name.encode())
        assert node, f"{path} is not there"
    fd, offset, length = tree.locate(node, 0, 1 << 20)
    return os.pread(fd, length, offset)


def check_image(store: Store, name: str = "box:1") -> None:
    """The image of `archives` can be resolved, and shows the files of its layers."""
    image = resolve(name, store)
    assert isinstance(image, StoredImage)
    assert image.config.cmd == ["/bin/sh"]
    assert image.config.env == ["A=b"]
    tree = image.open_tree()
    try:
        assert content(tree, "etc/one") == b"1"
        assert content(tree, "etc/shared") == b"second"
    finally:
        tree.close()


FORMS = [
    (kind, compression, whole)
    for kind in ("docker", "oci")
    for compression in archives.COMPRESS
    for whole in ("", "gzip", "zstd")
]


@pytest.mark.parametrize(("kind", "compression", "whole"), FORMS)
def test_every_form_of_archive(store: Store, tmp_path: Path, kind: str, compression: str, whole: str) -> None:
    files = archives.docker(compression) if kind == "docker" else archives.oci(compression)
    data = archives.tar(files)
    if whole:
        data = gzip.compress(data) if whole == "gzip" else zstandard.ZstdCompressor().compress(data)
    (tmp_path / "image.tar").write_bytes(data)
    loaded = load(str(tmp_path / "image.tar"), store)
    assert [image.names for image in loaded] == [["docker.io/library/box:1"]]
    assert loaded[0].image == archives.digest(archives.config([archives.FIRST, archives.SECOND]))
    check_image(store)
    assert os.listdir(store.path("tmp")) == []


@pytest.mark.parametrize("compression", archives.COMPRESS)
def test_a_layout_directory_and_an_uncompressed_layer_stored_once(
    store: Store, tmp_path: Path, compression: str
) -> None:
    load(str(archives.write(archives.oci(compression), tmp_path / "layout")), store)
    check_image(store)
    links = {os.stat(path).st_nlink for path in Path(store.path("layers")).iterdir()}
    assert links == ({2} if not compression else {1})


def test_the_store_is_a_layout_for_other_tools(store: Store, tmp_path: Path) -> None:
    (tmp_path / "image.tar").write_bytes(archives.tar(archives.docker("+gzip")))
    load(str(tmp_path / "image.tar"), store)
    image = f"{store.root}:docker.io/library/box:1"
    found = subprocess.run(["skopeo", "inspect", f"oci:{image}"], check=True, stdout=subprocess.PIPE)
    assert len(json.loads(found.stdout)["Layers"]) == 2
    unpack = ["umoci", "unpack", *(["--rootless"] if os.geteuid() else []), "--image", image]
    subprocess.run([*unpack, tmp_path / "bundle"], check=True, capture_output=True)
    assert (tmp_path / "bundle/rootfs/etc/shared").read_text() == "second"


def test_what_another_tool_put_into_the_store_can_be_used(store: Store, tmp_path: Path) -> None:
    load(str(archives.write(archives.oci(name="other:1"), tmp_path / "layout")), store)
    source, target = f"oci:{tmp_path}/layout:other:1", f"oci:{store.root}:docker.io/library/box:1"
    subprocess.run(["skopeo", "copy", "-q", source, target], check=True)
    check_image(store)


@pytest.mark.parametrize("compression", archives.COMPRESS)
@pytest.mark.parametrize("kind", [archives.oci, archives.docker])
def test_nothing_is_written_twice(
    store: Store, tmp_path: Path, kind: Callable[[str], archives.Files], compression: str
) -> None:
    """Nor read: an archive whose layers were replaced by nothing is as good, since the store has them."""
    path = tmp_path / "image.tar"
    path.write_bytes(archives.tar(kind(compression)))
    load(str(path), store)
    before = inodes(store)
    load(str(path), store)
    load(str(path), store, named=False)
    assert inodes(store) == before
    emptied = {name: b"" if name.endswith("layer.tar") else data for name, data in kind(compression).items()}
    path.write_bytes(archives.tar(emptied))
    load(str(path), store)
    assert inodes(store) == before
    check_image(store)


def test_loading_again_mends_what_was_lost(store: Store, tmp_path: Path) -> None:
    (tmp_path / "image.tar").write_bytes(archives.tar(archives.docker("+gzip")))
    load(str(tmp_path / "image.tar"), store)
    whole = {name: os.stat(store.path(name)).st_size for name in inodes(store)}
    for name in whole:
        os.unlink(store.path(name))
        load(str(tmp_path / "image.tar"), store)
        check_image(store)
        assert {name: os.stat(store.path(name)).st_size for name in inodes(store)} == whole, name


def test_layers_that_the_store_has_from_another_image_are_not_written_again(store: Store, tmp_path: Path) -> None:
    for name, last in (("one", archives.SECOND), ("two", archives.layer({"etc/three": "3"}))):
        (tmp_path / f"{name}.tar").write_bytes(archives.tar(archives.docker("+gzip", tags=(name,), last=last)))
    load(str(tmp_path / "one.tar"), store)
    before = inodes(store)
    load(str(tmp_path / "two.tar"), store)
    after = inodes(store)
    assert {name: after[name] for name in before} == before
    assert len([name for name in after if name.startswith("layers/")]) == 3
    prune(store)
    check_image(store, "one")


def inodes(store: Store) -> dict[str, int]:
    """Every stored file that loading again must leave alone."""
    found = {}
    for directory in ("blobs/sha256", "layers", "images"):
        for name in os.listdir(store.path(directory)):
            found[f"{directory}/{name}"] = os.stat(store.path(directory, name)).st_ino
    return found


def test_a_deleted_index_and_layer_are_made_again(store: Store, tmp_path: Path) -> None:
    (tmp_path / "image.tar").write_bytes(archives.tar(archives.oci("+zstd")))
    image = load(str(tmp_path / "image.tar"), store)[0]
    os.unlink(store.index(image.image))
    check_image(store)
    os.unlink(store.layer(image.config.diff_ids[0]))
    check_image(store)
    Path(store.index(image.image)).write_bytes(b"of another version")
    check_image(store)


def test_links_for_layers_that_occur_twice(store: Store, tmp_path: Path) -> None:
    files = archives.docker()
    data = archives.config([archives.FIRST, archives.FIRST])
    entry = {"Config": "config.json", "RepoTags": ["box:1"], "Layers": ["a/layer.tar", "c/layer.tar"]}
    files |= {"config.json": data, "manifest.json": archives.dumps([entry])}
    (tmp_path / "image.tar").write_bytes(archives.tar(files, {"c/layer.tar": "../a/layer.tar"}))
    load(str(tmp_path / "image.tar"), store)
    assert len(os.listdir(store.path("layers"))) == 1


def test_several_images_and_names(store: Store, tmp_path: Path) -> None:
    files: archives.Files = {}
    one = archives.image(files, [archives.FIRST])
    two = archives.image(files, [archives.FIRST, archives.SECOND], "+gzip")
    entries = [archives.named(one, "one:a"), archives.named(one, "one:b"), archives.named(two, "ghcr.io/me/two:c")]
    (tmp_path / "image.tar").write_bytes(archives.tar(archives.layout(files, entries)))
    loaded = load(str(tmp_path / "image.tar"), store)
    assert [image.names for image in loaded] == [
        ["docker.io/library/one:a", "docker.io/library/one:b"],
        ["ghcr.io/me/two:c"],
    ]
    with pytest.raises(UfsError, match="holds 2 images"):
        resolve(str(tmp_path / "image.tar"), store)


NAMES = [
    ({"org.opencontainers.image.ref.name": "tool"}, ["docker.io/library/tool:latest"]),
    ({"org.opencontainers.image.ref.name": "1.36"}, ["docker.io/library/mine:1.36"]),
    ({"org.opencontainers.image.ref.name": "latest"}, ["docker.io/library/mine:latest"]),
    (
        {"org.opencontainers.image.ref.name": "latest", "io.containerd.image.name": "quay.io/a/b:x"},
        ["quay.io/a/b:x"],
    ),
    ({}, []),
]


@pytest.mark.parametrize(("annotations", "names"), NAMES)
def test_names_from_annotations(store: Store, tmp_path: Path, annotations: dict[str, str], names: list[str]) -> None:
    files: archives.Files = {}
    entry = archives.image(files, [archives.FIRST]) | {"annotations": annotations}
    (tmp_path / "mine.tar").write_bytes(archives.tar(archives.layout(files, [entry])))
    assert [image.names for image in load(str(tmp_path / "mine.tar"), store)] == [names]


def test_platforms(store: Store, tmp_path: Path) -> None:
    files: archives.Files = {}
    inner = []
    for architecture, variant in (("amd64", ""), ("arm64", "v8"), ("arm", "v6"), ("arm", "v7"), ("s390x", "")):
        platform = {"os": "linux", "architecture": architecture, "variant": variant}
        inner.append(archives.image(files, [archives.FIRST], **platform) | {"platform": platform})
    attestation = {"platform": {"os": "unknown", "architecture": "unknown"}}
    inner.append(archives.image(files, [archives.FIRST], architecture="unknown") | attestation)
    top = archives.blob(files, archives.dumps({"schemaVersion": 2, "manifests": inner}), archives.INDEX_TYPE)
    path = str(archives.write(archives.layout(files, [archives.named(top, "box:1")]), tmp_path / "layout"))
    for asked, got in (("amd64", "linux/amd64"), ("arm64", "linux/arm64/v8"), ("s390x", "linux/s390x")):
        assert str(load(path, store, Platform("linux", asked))[0].config.platform) == got
    assert str(load(path, store, Platform("linux", "arm", "v8"))[0].config.platform) == "linux/arm/v7"
    assert str(load(path, store, Platform("linux", "arm", "v6"))[0].config.platform) == "linux/arm/v6"
    expected = "no image for linux/riscv64: it has linux/amd64, linux/arm/v6, linux/arm/v7, linux/arm64/v8"
    with pytest.raises(UfsError, match=expected):
        load(path, store, Platform("linux", "riscv64"))


def test_a_path_is_loaded_once_and_again_when_it_changed(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(archives.tar(archives.oci("+gzip")))
    first = resolve(str(path), store)
    assert first.name == str(path)
    assert [record.name for record in store.records()] == [""], "a path gives no name away"
    index = Path(store.path("index.json")).stat()
    assert resolve(str(path), store).id == first.id
    assert Path(store.path("index.json")).stat().st_ino == index.st_ino, "nothing was loaded again"
    files: archives.Files = {}
    path.write_bytes(archives.tar(archives.layout(files, [archives.image(files, [archives.FIRST])])))
    assert resolve(str(path), store).id != first.id


def test_a_name_that_moves_leaves_the_old_image(store: Store, tmp_path: Path) -> None:
    load(str(archives.write(archives.oci(), tmp_path / "old")), store)
    files: archives.Files = {}
    entry = archives.named(archives.image(files, [archives.SECOND]), "box:1")
    load(str(archives.write(archives.layout(files, [entry]), tmp_path / "new")), store)
    assert sorted(record.name for record in store.records()) == ["", "docker.io/library/box:1"]


def test_one_image_from_several_forms_of_archive_is_there_once(store: Store, tmp_path: Path) -> None:
    for kind in (archives.oci, archives.docker):
        for compression in archives.COMPRESS:
            path = tmp_path / f"{kind.__name__}{compression}.tar"
            path.write_bytes(archives.tar(kind(compression)))
            load(str(path), store)
            assert [record.name for record in store.records()] == ["docker.io/library/box:1"], path
            check_image(store)
            load(str(path), store, named=False)
            assert [record.name for record in store.records()] == ["docker.io/library/box:1"], path
            check_image(store, str(path))
    prune(store)
    check_image(store)


def test_a_store_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    archive = archives.write(archives.oci(), tmp_path / "layout")
    with pytest.raises(UfsError, match=r"file/store: cannot make .*: Not a directory; set UFS_ROOT to a directory"):
        load(str(archive), Store(str(tmp_path / "file" / "store")))
