"""Random layers, with symbolic links on the way to members: compiled, as a model has it, and as umoci unpacks them."""

from __future__ import annotations

import random
import stat
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unionfs.changeset_model import Op, Refused, merged
from tests.unionfs.compiled_image_support import Node, disk_snapshot, image, node, rows, snapshot
from tests.unionfs.umoci_support import unpack
from unionfs.image.compiler import LayerError

VERBS = ["file", "file", "dir", "symlink", "symlink", "link", "whiteout", "opaque"]
NAMES = ["a", "b", "c"]
TARGETS = ["a", "b", "b/c", "/a", "/c/b", "../b", "../../../c", "c/../a", ".", "/"]

paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(tuple)
ops = st.builds(Op, st.sampled_from(VERBS), paths, paths, st.sampled_from(TARGETS), st.integers(0, 0o777))


def number(layers: list[list[Op]]) -> list[list[Op]]:
    for count, op in enumerate(op for layer in layers for op in layer):
        op.number = count + 0o500
    return layers


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(ops, max_size=8), max_size=4).map(number))
def test_layers_agree_with_the_model(layers: list[list[Op]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        archives = [[op.member() for op in layer] for layer in layers]
        try:
            expected = merged(layers)
        except Refused:
            with pytest.raises(LayerError, match=r"hard link to|loop"), image(Path(folder), *archives):
                pass
            return
        with image(Path(folder), *archives) as tree:
            found = {tuple(path.decode().split("/")): row for path, row in rows(tree).items() if path}
            assert found.keys() == expected.keys()
            counts = Counter(id(thing) for thing in expected.values())
            below = Counter(path[:-1] for path, thing in expected.items() if thing.kind == "dir")
            seen: dict[int, int] = {}
            for path, thing in expected.items():
                shown = node(tree, found[path])
                kind = {stat.S_IFDIR: "dir", stat.S_IFREG: "file", stat.S_IFLNK: "symlink"}[stat.S_IFMT(shown.mode)]
                assert (kind, shown.mode & 0o777, shown.content.decode()) == (thing.kind, thing.mode, thing.content)
                assert shown.nlink == (2 + below[path] if thing.kind == "dir" else counts[id(thing)])
                assert seen.setdefault(id(thing), found[path]) == found[path]
            assert len(set(seen.values())) == len(seen)


def chosen(chance: random.Random) -> list[list[Op]]:
    """Layers of one seed. No hard links: umoci refuses one to itself, and removes what is replaced before it links."""

    def path() -> tuple[str, ...]:
        return tuple(chance.choices(NAMES, k=chance.choice([1, 1, 2, 2, 3])))

    verbs = [verb for verb in VERBS if verb != "link"]
    return number(
        [
            [Op(chance.choice(verbs), path(), (), chance.choice(TARGETS)) for _ in range(chance.randrange(1, 7))]
            for _ in range(3)
        ]
    )


def replaces(layers: list[list[Op]]) -> bool:
    """Whether umoci 0.4 would do otherwise: a directory takes the place of a file or of a link to nothing."""
    try:
        return merged(layers).replaced
    except Refused:
        return False


def without_times(found: dict[bytes, Node]) -> dict[bytes, Node]:
    """Implied directories have the time of unpacking; other times are the same for all members here."""
    return {path: entry._replace(mtime=0) for path, entry in found.items() if path}


@pytest.mark.only_root
def test_random_layers_are_what_umoci_unpacks(tmp_path: Path) -> None:
    outcomes: Counter[str] = Counter()
    for seed in range(120):
        layers = chosen(random.Random(seed))
        archives = [[op.member() for op in layer] for layer in layers]
        scratch = tmp_path / str(seed)
        scratch.mkdir()
        if replaces(layers):
            with image(scratch, *archives):
                outcomes["replaced"] += 1
            continue
        root, refusal = unpack(scratch, archives)
        if refusal:
            with pytest.raises(LayerError), image(scratch, *archives):
                pass
            outcomes["refused"] += 1
            continue
        with image(scratch, *archives) as tree:
            assert without_times(snapshot(tree)) == without_times(disk_snapshot(root)), seed
        outcomes["taken"] += 1
    assert outcomes["taken"] > 20
    assert outcomes["refused"] > 2
