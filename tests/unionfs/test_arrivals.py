"""Names in the order in which they came: a listing in parts beside a model, whatever comes and goes meanwhile."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from unionfs.arrivals import Arrivals

NAMES = st.sampled_from([b"%d" % number for number in range(60)])


@given(st.lists(st.tuples(st.sampled_from(["come", "go", "list"]), NAMES), max_size=400))
def test_a_listing_shows_what_was_there_and_nothing_twice(steps: list[tuple[str, bytes]]) -> None:
    names, there = Arrivals(), dict[bytes, int]()
    cookies: dict[bytes, int] = {}
    at, due, seen = 0, list[bytes](), list[bytes]()
    for step, name in steps:
        if step == "come":
            names.add(name)
            there.setdefault(name, 0)
        elif step == "go":
            names.discard(name)
            there.pop(name, None)
            cookies.pop(name, None)
            due = [other for other in due if other != name]
        else:
            if not at:
                due = list(there)[::-1]
            found = next(names.after(at), None)
            assert (found[0] if found else None) == (due.pop(0) if due else None)
            if found is None:
                at, seen = 0, []
                continue
            assert found[0] not in seen
            seen.append(found[0])
            assert cookies.setdefault(*found) == found[1]
            assert found[1] % 2 == 1
            at = found[1]
        assert (name in names) == (name in there)
    assert [name for name, _ in names.after(0)] == list(there)[::-1]
    assert [own for _, own in names.after(0)] == sorted((own for _, own in names.after(0)), reverse=True)


def test_numbers_stay_small_however_many_come_and_go() -> None:
    names = Arrivals()
    for _ in range(3):
        names._last += 1 << 24
        names.add(b"a")
        names.discard(b"a")
        names.add(b"b")
        assert dict(names.after(0))[b"b"] < 1 << 25
        names.discard(b"b")
