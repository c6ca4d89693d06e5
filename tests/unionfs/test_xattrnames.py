"""Names of extended attributes on disk and as shown."""

from __future__ import annotations

import pytest

from unionfs import xattrnames

MARKS = [
    b"trusted.overlay.opaque",
    b"user.overlay.redirect",
    b"user.fuseoverlayfs.opaque",
    b"user.ufs.origin",
    b"user.containers.override_stat",
]
OTHERS = [b"user.containers.other", b"user.overlayfs", b"user.mime_type", b"security.capability", b"trusted.x"]


@pytest.mark.parametrize("overrides", [False, True])
@pytest.mark.parametrize("name", MARKS)
def test_a_mark_is_hidden_and_one_that_a_program_sets_is_none(name: bytes, overrides: bool) -> None:
    assert xattrnames.shown(name) is None
    if name != b"trusted.overlay.opaque":  # that has yet another form in a layer with overrides
        assert xattrnames.shown(name, overrides) is None
    for _ in range(3):  # an overlay in an overlay in an overlay
        on_disk = xattrnames.stored(name, overrides)
        assert on_disk not in MARKS
        assert xattrnames.shown(on_disk, overrides) == name
        name = on_disk


@pytest.mark.parametrize("name", OTHERS)
def test_all_others_are_as_they_are(name: bytes) -> None:
    assert xattrnames.stored(name) == name
    assert xattrnames.shown(name) == name
    assert xattrnames.shown(xattrnames.stored(name, overrides=True), overrides=True) == name


def test_the_form_is_the_kernels() -> None:
    assert xattrnames.stored(b"trusted.overlay.opaque") == b"trusted.overlay.overlay.opaque"
    assert xattrnames.stored(b"user.overlay.overlay.x") == b"user.overlay.overlay.overlay.x"
