"""What is not an image, or a damaged or forged one: one line that says so, and a store as before."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher.errors import UfsError
from launcher.image.load import load
from launcher.image.store import Store
from tests.images import Images
from tests.launcher import archives
from tests.launcher.archives import Files


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with an image in it."""
    made = Store(str(tmp_path / "store"))
    load(str(archives.write(archives.oci("+gzip", "before:1"), tmp_path / "before")), made)
    return made


def state(store: Store) -> dict[str, tuple[int, str]]:
    """Every file of the store: inode and hash of its content."""
    found = {}
    for top, _, files in os.walk(store.root):
        for name in files:
            path = os.path.join(top, name)
            digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
            found[os.path.relpath(path, store.root)] = os.stat(path).st_ino, digest
    return found


def refused(store: Store, path: Path, message: str) -> None:
    before = state(store)
    with pytest.raises(UfsError) as raised:
        load(str(path), store)
    assert re.search(message, str(raised.value)), str(raised.value)
    assert "\n" not in str(raised.value)
    assert state(store) == before


def document(change: Callable[[dict[str, Any]], None], compression: str = "") -> Files:
    """A layout whose manifest is changed before it is written."""
    files: Files = {}
    layers = [archives.FIRST, archives.layer({"etc/new": "new"})]
    return archives.layout(files, [archives.image(files, layers, compression, change)])


def configured(**more: Any) -> Files:
    files: Files = {}
    return archives.layout(files, [archives.image(files, [archives.FIRST], **more)])


def changed(name: str, data: bytes, files: Files | None = None) -> Files:
    return (files or archives.oci()) | {name: data}


def damaged(compression: str, at: int = 60) -> Files:
    """A layout whose second layer has one bit turned."""
    files: Files = {}
    layers = [archives.FIRST, archives.layer({"etc/new": "new" * 1000})]
    entry = archives.image(files, layers, compression)
    name = "blobs/sha256/" + archives.digest(archives.COMPRESS[compression](layers[1]))
    data = bytearray(files[name])
    data[at] ^= 1
    return archives.layout(files, [entry]) | {name: bytes(data)}


def index(entry: dict[str, Any]) -> Files:
    return archives.layout(archives.oci(), [entry])


def without(files: Files, name: str) -> Files:
    return {key: data for key, data in files.items() if not key.startswith(name)}


def layer_of(member: dict[str, str]) -> Files:
    files: Files = {}
    return archives.layout(files, [archives.image(files, [archives.layer(member)])])


def set_type(value: str) -> Callable[[dict[str, Any]], None]:
    return lambda manifest: manifest["layers"][0].update(mediaType=value)


def set_digest(value: str) -> Callable[[dict[str, Any]], None]:
    return lambda manifest: manifest["layers"][0].update(digest=value)


def described(manifest: dict[str, Any]) -> Files:
    """A layout with a manifest whose descriptor says no media type."""
    files: Files = {}
    entry = archives.blob(files, archives.dumps(manifest))
    del entry["mediaType"]
    return archives.layout(files, [entry])


NEW = archives.layer({"etc/new": "new"})
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
DEEP = b"[" * 100_000
GOOD = {"mediaType": archives.MANIFEST_TYPE, "digest": "sha256:" + "a" * 64, "size": 5}
CASES: dict[str, tuple[Files, str]] = {
    "nothing of an image": ({"etc/passwd": b"root"}, "holds no image"),
    "layout of version 2": (changed("oci-layout", b'{"imageLayoutVersion": "2.0"}'), "version '2.0'"),
    "index not JSON": (changed("index.json", b"{"), "index.json is not valid JSON"),
    "index not an object": (changed("index.json", b"[]"), "not a JSON object"),
    "index nested deeply": (changed("index.json", DEEP), "nested too deeply"),
    "index without anything": (changed("index.json", b"{}"), "index.json names no image"),
    "index of schema 1": (changed("index.json", b'{"schemaVersion": 1, "manifests": []}'), "'schemaVersion' is not 2"),
    "index of nothing": (archives.layout({}, []), "names no image"),
    "index too long": (changed("index.json", b" " * (5 << 20)), "limit for a JSON document"),
    "not text": (changed("index.json", b'\xff\xfe{}'), "not valid JSON"),
    "descriptor not an object": (changed("index.json", b'{"schemaVersion":2,"manifests":[1]}'), "not a JSON object"),
    "manifest missing": (index(GOOD), "is not in it"),
    "digest with a path": (index(GOOD | {"digest": "sha256:../../../../etc/passwd"}), "malformed digest"),
    "digest in capitals": (index(GOOD | {"digest": "sha256:" + "A" * 64}), "malformed digest"),
    "digest too short": (index(GOOD | {"digest": "sha256:abc"}), "malformed digest"),
    "digest of sha512": (index(GOOD | {"digest": "sha512:" + "a" * 128}), "sha512 digests are not supported"),
    "digest not text": (index(GOOD | {"digest": 5}), "'digest' is not a string"),
    "size negative": (index(GOOD | {"size": -1}), "'size' is not a number"),
    "size true": (index(GOOD | {"size": True}), "'size' is not a number"),
    "manifest of unknown type": (index(GOOD | {"mediaType": "text/html"}), "unknown media type 'text/html'"),
    "layer of unknown type": (document(set_type("application/x-squashfs")), "unknown media type"),
    "layer digest with a path": (document(set_digest("sha256:../../x")), "malformed digest"),
    "layer missing": (document(set_digest("sha256:" + "b" * 64)), "not in it and not in the store"),
    "layer of another size": (document(lambda m: m["layers"][0].update(size=5)), "manifest says 5"),
    "fewer layers": (document(lambda m: m["layers"].pop()), "2 diff ids for 1 layers"),
    "config of unknown type": (document(lambda m: m["config"].update(mediaType="a/b")), "config of unknown"),
    "config missing": (document(lambda m: m.pop("config")), "has no 'config'"),
    "layers not a list": (document(lambda m: m.update(layers={})), "'layers' is not a list"),
    "Env not a list": (configured(config={"Env": "A=b"}), "'Env' is not a list"),
    "Cmd of numbers": (configured(config={"Cmd": [1]}), "'Cmd' is not a list of strings"),
    "Labels not strings": (configured(config={"Labels": {"a": []}}), "'Labels' is not an object"),
    "diff id with a path": (configured(rootfs={"diff_ids": ["sha256:/etc"]}), "malformed digest"),
    "diff id of another layer": (configured(rootfs={"diff_ids": ["sha256:" + "c" * 64]}), "config says sha256:ccc"),
    "plain layer damaged": (damaged("", 600), "does not match its digest"),
    "gzip layer damaged": (damaged("+gzip"), "damaged gzip|does not match"),
    "zstd layer damaged": (damaged("+zstd", 20), "damaged zstd|unpacks to|does not match"),
    "layer hides the directory above": (layer_of({"a/.wh...": ""}), r"member 'a/.wh...': a whiteout of no.*not loaded"),
    "config not in the archive": (without(archives.docker(), archives.digest(b"")) | {"manifest.json": archives.dumps(
        [{"Config": "x.json", "Layers": []}])}, "config 'x.json' is not in"),
    "layer not in the archive": (without(archives.docker(), "a/"), "layer 'a/layer.tar' is not in"),
    "manifest.json not a list": (changed("manifest.json", b"5", archives.docker()), "is not a list"),
    "manifest.json of nothing": (changed("manifest.json", b"[]", archives.docker()), "manifest.json names no image"),
    "manifest.json of a directory": (changed("manifest.json", b"{}", archives.docker()), "neither a manifest nor"),
    "docker layer damaged": (changed("b/layer.tar", archives.FIRST, archives.docker(last=NEW)), "config says"),
    "layer of damaged xz": (changed("b/layer.tar", b"\xfd7zXZ\0" + bytes(99), archives.docker(last=NEW)), "damaged xz"),
    "layer of lz4": (changed("b/layer.tar", b"\x04\x22\x4d\x18", archives.docker(last=NEW)), "compressed with lz4"),
    "encrypted layer": (document(set_type(archives.LAYER_TYPE + "+gzip+encrypted")), "layer 0 is encrypted"),
    "manifest of schema 1": (index(GOOD | {"mediaType": SCHEMA_1}), "Docker's schema 1, which ended in 2017"),
    "manifest of schema 1, unsaid": (described({"schemaVersion": 1, "fsLayers": []}), "Docker's schema 1"),
    "manifest of a chart": (document(lambda m: m["config"].update(mediaType="application/vnd.cncf.helm.v1+json")),
                            "it is not an image"),
    "manifest and index at once": (document(lambda m: m.update(manifests=[GOOD])), "a manifest and an index at once"),
    "zero in a command": (configured(config={"Cmd": ["a\0b"]}), "has a NUL character"),
    "zero in the working directory": (configured(config={"WorkingDir": "/a\0b"}), "has a NUL character"),
    "a root file system": (dict.fromkeys(["bin/sh", "etc/passwd", "usr/bin/env", "var/x"], b""), "podman import"),
    "a recipe": ({"Dockerfile": b"FROM scratch", "app": b""}, "what an image is built from: podman build"),
    "of Docker 1.9": ({"repositories": b"{}", "a/json": b"{}", "a/layer.tar": b""}, "Docker before 1.10"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_refused(store: Store, tmp_path: Path, case: str) -> None:
    files, message = CASES[case]
    (tmp_path / "image.tar").write_bytes(archives.tar(files))
    refused(store, tmp_path / "image.tar", message)


LINKS = {
    "out of the archive": {"index.json": "/etc/passwd"},
    "above the archive": {"index.json": "../../etc/passwd"},
    "to itself": {"index.json": "index.json"},
}


@pytest.mark.parametrize("case", LINKS)
def test_links_stay_in_the_archive(store: Store, tmp_path: Path, case: str) -> None:
    files = without(archives.oci(), "index.json")
    (tmp_path / "image.tar").write_bytes(archives.tar(files, LINKS[case]))
    refused(store, tmp_path / "image.tar", "is a link to")


def test_names_in_a_directory_stay_in_it(store: Store, tmp_path: Path) -> None:
    entry = {"Config": "../config.json", "RepoTags": None, "Layers": ["../../layer.tar"]}
    directory = archives.write({"manifest.json": archives.dumps([entry])}, tmp_path / "image")
    (tmp_path / "config.json").write_bytes(archives.config([NEW]))
    refused(store, directory, "config '../config.json' is not in the archive")


def test_links_in_a_directory_are_not_followed(store: Store, tmp_path: Path) -> None:
    layout = archives.write(without(archives.oci(), "blobs"), tmp_path / "layout")
    elsewhere = archives.write(archives.oci(), tmp_path / "elsewhere")
    (layout / "blobs").symlink_to(elsewhere / "blobs")
    refused(store, layout, "symbolic links in a layout are not followed")


def test_a_fifo_in_a_directory_does_not_block(store: Store, tmp_path: Path) -> None:
    layout = archives.write(without(archives.oci(), "oci-layout"), tmp_path / "layout")
    os.mkfifo(layout / "oci-layout")
    refused(store, layout, "is not a file")


@pytest.mark.parametrize("compression", archives.COMPRESS)
@pytest.mark.parametrize("kind", ["docker", "oci"])
def test_cut_anywhere(store: Store, tmp_path: Path, kind: str, compression: str) -> None:
    """Cut at every block that matters; the end of a tar is padding, and cutting that is no loss."""
    files = archives.docker(compression, last=NEW) if kind == "docker" else archives.oci(compression)
    data = archives.tar(dict(reversed(files.items())))
    used = len(data.rstrip(b"\0"))
    before = state(store)
    path = tmp_path / "image.tar"
    for end in range(0, used - 1024, 1024):
        for more in (100, 512, 1024):  # in a header, after one, and between two members
            path.write_bytes(data[: end + more])
            with pytest.raises(UfsError, match="is not an archive" if end + more < 512 else r"\bcut\b"):
                load(str(path), store)
    assert state(store) == before


@pytest.mark.parametrize("form", ["docker.tar", "gzip.oci.tar", "zstd.oci.tar"])
def test_half_of_an_archive_of_skopeo_is_cut(images: Images, store: Store, tmp_path: Path, form: str) -> None:
    data = (images.built("busybox") / form).read_bytes()
    (tmp_path / "image.tar").write_bytes(data[: len(data) // 2])
    refused(store, tmp_path / "image.tar", r"\bcut\b")


@pytest.mark.parametrize("whole", [*archives.WHOLE])
def test_a_cut_stream(store: Store, tmp_path: Path, whole: str) -> None:
    """Of the archive as a whole, and of a layer in it; the end of the last frame or block included."""
    layer = archives.layer({"etc/new": "new" * 1000})
    data = archives.WHOLE[whole](archives.tar(archives.docker(last=layer)))
    for end in (len(data) // 2, len(data) - 3):
        (tmp_path / "image.tar").write_bytes(data[:end])
        refused(store, tmp_path / "image.tar", f"{whole} stream ends early; it was cut")
    inner = archives.WHOLE[whole](layer)
    (tmp_path / "image.tar").write_bytes(archives.tar(archives.docker(last=layer) | {"b/layer.tar": inner[:-3]}))
    refused(store, tmp_path / "image.tar", f"layer b/layer.tar: the {whole} stream ends early; it was cut")


WHOLE = {
    "empty": (b"", "is empty"),
    "text": (b"hello, this is no archive\n" * 100, "is not an archive"),
    "a web page": (b"\n<!DOCTYPE html>\n<html>" + b" " * 600, "is a web page: the download went wrong"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull fetches the file"),
    "squashfs": (b"hsqs" + bytes(600), "is a squashfs"),
    "a program": (b"\x7fELF" + bytes(600), "is a program"),
    "Singularity": (b"#!/usr/bin/env run-singularity\n\0SIF_MAGIC\0" + bytes(600), "an image of Singularity"),
    "an index.json": (b'{"schemaVersion": 2, "manifests": []}'.ljust(600), "is JSON; .* give the directory"),
    "short text": (b"hello", "is not an archive"),
    "xz": (b"\xfd7zXZ\0" + bytes(600), "damaged xz stream"),
    "bzip2": (b"BZh9" + bytes(600), "damaged bzip2 stream"),
    "zip": (b"PK\x03\x04" + bytes(600), "unzip it first"),
}


@pytest.mark.parametrize("case", WHOLE)
def test_not_an_archive(store: Store, tmp_path: Path, case: str) -> None:
    data, message = WHOLE[case]
    (tmp_path / "image.tar").write_bytes(data)
    refused(store, tmp_path / "image.tar", message)
