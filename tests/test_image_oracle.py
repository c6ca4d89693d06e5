"""Images by umoci, buildah and skopeo are, entry by entry, what umoci unpacks of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.images import Images, oracle
from tests.support.snapshot import differences, snapshot
from tests.support.treewalk import walk
from tests.support.users import User
from unionfs.image.compiler import compile_image
from unionfs.image.tree import CompiledImage

Snapshot = dict[str, dict[str, Any]]
IMAGES = ["tricky", "buildah", "busybox"]
FORMS = ["plain.oci", "gzip.oci", "zstd.oci", "gzip.oci.tar", "zstd.oci.tar", "docker.tar"]
UNSAID = [".", "implied", "implied/parents"]
"""Directories whose times no layer tells: umoci leaves the time at which it unpacked."""


@pytest.fixture(scope="module")
def expected(images: Images, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Snapshot]:
    scratch = tmp_path_factory.mktemp("oracle")
    return {name: without_unsaid(oracle.unpacked(images, name, scratch)) for name in IMAGES}


def without_unsaid(found: Snapshot) -> Snapshot:
    for path in UNSAID:
        found.get(path, {}).pop("mtime", None)
    return found


@pytest.mark.only_root
@pytest.mark.parametrize("name", IMAGES)
def test_a_compiled_image_is_what_umoci_unpacks(
    name: str, images: Images, expected: dict[str, Snapshot], tmp_path: Path
) -> None:
    """The tree itself, before any mount."""
    layers = oracle.layer_blobs(images.built(name) / "plain.oci")
    assert len(layers) >= {"tricky": 8, "buildah": 5, "busybox": 1}[name]
    assert differences(without_unsaid(compiled(layers, tmp_path)), expected[name]) == ""


def test_sparse_files_are_what_tar_unpacks(images: Images, tmp_path: Path) -> None:
    """All sparse formats of GNU tar; umoci does not know the oldest, so tar is the oracle."""
    layout = images.built("sparse")
    found = compiled(oracle.layer_blobs(layout / "plain.oci"), tmp_path)
    expected = snapshot(str(layout / "expected"))
    del found["."], expected["."]  # the root itself is not in these tars
    assert differences(found, expected) == ""


@pytest.mark.only_root
@pytest.mark.parametrize("engine", ["direct", "pyfuse3"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["tricky", "buildah"])
def test_a_mounted_image_is_what_umoci_unpacks(
    name: str, form: str, engine: str, images: Images, expected: dict[str, Snapshot], root_user: User
) -> None:
    """Through `ufs load` and `ufs mount`, layers in plain, gzip and zstd, both engines."""
    reference = load(root_user, images.path(name, form))
    with mounted(root_user, reference, "--engine", engine) as target:
        found = without_unsaid(seen(root_user, target))
    assert differences(found, expected[name]) == ""


@pytest.mark.parametrize("engine", ["direct", "pyfuse3"])
def test_every_user_sees_the_image(user: User, engine: str, images: Images, expected: dict[str, Snapshot]) -> None:
    """A mount is for its maker alone, who may read everything in it, whatever modes and owners say."""
    with mounted(user, str(images.path("tricky", "zstd.oci.tar")), "--engine", engine) as target:
        found = without_unsaid(seen(user, target))
    wanted = expected["tricky"]
    if user.uid != 0:
        wanted = {path: without_trusted(entry) for path, entry in wanted.items()}
    assert differences(found, wanted) == ""


def without_trusted(entry: dict[str, Any]) -> dict[str, Any]:
    """The kernel shows trusted.* to CAP_SYS_ADMIN alone."""
    xattrs = {name: value for name, value in entry["xattrs"].items() if not name.startswith("trusted.")}
    return {**entry, "xattrs": xattrs}


def load(user: User, path: Path) -> str:
    """`ufs load`; the name under which the image then is in the store."""
    said = user.run(["ufs", "load", path], check=True).stdout
    assert said.startswith("Loaded image: "), said
    name: str = said.removeprefix("Loaded image: ").strip()
    assert name.split(":") in [line.split()[:2] for line in user.run(["ufs", "images"]).stdout.splitlines()]
    return name


@contextmanager
def mounted(user: User, image: str, *options: str) -> Iterator[Path]:
    """`ufs mount` and, in the end, `ufs umount`."""
    target = user.temp / "mount point"
    user.run(["mkdir", target], check=True)
    user.run(["ufs", "mount", *options, image, target], check=True)
    try:
        yield target
    finally:
        user.run(["ufs", "umount", target], check=True)
    assert user.run(["ls", "-A", target], check=True).stdout == ""


def seen(user: User, target: Path) -> Snapshot:
    """A mount's content, read by the user who made it: nobody else may."""
    program = (Path(__file__).parent / "support" / "snapshot.py").read_text()
    found: Snapshot = json.loads(user.run([user.bin / "python", "-c", program, target], check=True).stdout)
    return found


def compiled(layers: list[Path], scratch: Path) -> Snapshot:
    """What the index over these layer tars shows."""
    compile_image(layers, scratch / "index")
    tree = CompiledImage(scratch / "index", layers)
    try:
        return walk(tree)
    finally:
        tree.close()
