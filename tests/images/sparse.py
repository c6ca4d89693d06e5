"""GNU tar's own sparse files, in every format it has for them."""

from __future__ import annotations

from pathlib import Path

from tests.images import tools
from tests.images.tricky import write, write_pieces

FORMATS = {
    "old": ["--format=gnu"],
    "pax-0.0": ["--format=pax", "--sparse-version=0.0"],
    "pax-0.1": ["--format=pax", "--sparse-version=0.1"],
    "pax-1.0": ["--format=pax", "--sparse-version=1.0"],
}


def build(into: Path) -> None:
    """The forms of `tools.convert_all`, tag sparse: a layer for each format. `expected/` is what tar unpacks."""
    image = tools.new_layout(into / "umoci", "sparse")
    expected = into / "expected"
    expected.mkdir()
    for name, options in FORMATS.items():
        tree = into / "tree"
        write_pieces(tree / name / "pieces", count=100)  # more than fit in one header
        with open(write(tree / name / "only-a-hole"), "wb") as hole:
            hole.truncate(5 << 20)
        with open(write(tree / name / "hole-first"), "wb") as hole:
            hole.seek(1 << 20)
            hole.write(b"end")
        (tree / name / ("a long name " * 15)).hardlink_to(tree / name / "pieces")
        tar = into / "layer.tar"
        tools.run("tar", *options, "--sparse", "-cf", tar, "-C", tree, name)
        tools.run("tar", "-xpf", tar, "-C", expected)
        tools.add_layer(image, tar)
        tools.run("rm", "-rf", tree, tar)
    tools.convert_all(into / "umoci", "sparse", into)
