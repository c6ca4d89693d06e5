"""Images by umoci, buildah and skopeo are, entry by entry, what umoci unpacks of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.images import Images, oracle
from tests.support.snapshot import differences, snapshot
from tests.support.treewalk import walk
from unionfs.image.compiler import compile_image
from unionfs.image.tree import CompiledImage

Snapshot = dict[str, dict[str, Any]]
IMAGES = ["tricky", "buildah", "busybox"]


@pytest.fixture(scope="module")
def expected(images: Images, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Snapshot]:
    scratch = tmp_path_factory.mktemp("oracle")
    return {name: oracle.unpacked(images, name, scratch) for name in IMAGES}


@pytest.mark.only_root
@pytest.mark.parametrize("name", IMAGES)
def test_a_compiled_image_is_what_umoci_unpacks(
    name: str, images: Images, expected: dict[str, Snapshot], tmp_path: Path
) -> None:
    """The tree itself, before any mount."""
    layers = oracle.layer_blobs(images.built(name) / "plain.oci")
    assert len(layers) >= {"tricky": 8, "buildah": 5, "busybox": 1}[name]
    assert differences(compiled(layers, tmp_path), expected[name]) == []


def test_sparse_files_are_what_tar_unpacks(images: Images, tmp_path: Path) -> None:
    """All sparse formats of GNU tar; umoci does not know the oldest, so tar is the oracle."""
    layout = images.built("sparse")
    found = compiled(oracle.layer_blobs(layout / "plain.oci"), tmp_path)
    expected = snapshot(str(layout / "expected"))
    del found["."], expected["."]  # the root itself is not in these tars
    assert differences(found, expected) == []


def compiled(layers: list[Path], scratch: Path) -> Snapshot:
    """What the index over these layer tars shows."""
    compile_image(layers, scratch / "index")
    tree = CompiledImage(scratch / "index", layers)
    try:
        return walk(tree)
    finally:
        tree.close()
