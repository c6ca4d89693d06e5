"""Every fuzz target takes its corpus and a fixed number of inputs made of it; script/fuzz searches for longer."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import targets

EXAMPLES = {"layer": 500, "document": 1000, "entries": 500, "source": 500, "words": 1000}
VALUES = (
    b"",
    b"\0",
    b"\xff",
    b"/",
    b"..",
    b"0",
    b"9" * 20,
    b"-1",
    b'"',
    b"{",
    b"[]",
    b"null",
    b"\\ud800",
    b"\x80" + b"\xff" * 11,
)

changes = st.lists(
    st.tuples(st.integers(0, 8191), st.integers(0, 24), st.sampled_from(VALUES) | st.binary(max_size=4)), max_size=4
)
"""(where, how much goes, what comes in its place)."""


@pytest.mark.parametrize("target", targets.TARGETS)
def test_the_corpus_is_taken(target: str) -> None:
    for path in targets.seeds(target):
        targets.TARGETS[target](path.read_bytes())


@pytest.mark.parametrize("target", targets.TARGETS)
def test_changed_inputs_are_taken_or_refused(target: str) -> None:
    seeds = [path.read_bytes() for path in targets.seeds(target)]

    @settings(max_examples=EXAMPLES[target], derandomize=True, database=None, deadline=None)
    @given(st.sampled_from(seeds), changes)
    def search(seed: bytes, made: list[tuple[int, int, bytes]]) -> None:
        data = seed
        for at, gone, new in made:
            at %= len(data) + 1
            # A tar stays one where nothing moves.
            kept = len(new) if target in ("layer", "source") and gone % 4 else gone
            data = data[:at] + new + data[at + kept :]
        targets.TARGETS[target](data)

    search()


def test_a_finding_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The targets are no friends of the parsers: what no caller of these knows comes out."""

    def damaged(*_: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr(targets.oci, "manifest", damaged)
    with pytest.raises(KeyError):
        targets.document(b"{}")
