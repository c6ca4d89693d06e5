"""The names of extended attributes: on disk, where some are marks of layers, and as a mount shows them.

A mark is never shown. A program that works on layers of its own in a mount (an engine, another overlay, a backup of
them) sets attributes of such names all the same, so these have another form on disk, which nobody takes for a mark:
``trusted.overlay.overlay.opaque`` is what shows as ``trusted.overlay.opaque``, and each level of mounts adds one more.
The kernel's overlayfs does it so (ovl_xattr_escape_name() of fs/overlayfs/xattrs.c), and reads what is written here.
In a layer with owners in xattrs (`unionfs.override`) those that an ordinary user may not set have a third form.
"""

from __future__ import annotations

from typing import Final

from unionfs import override

_ESCAPES: Final = {
    b"trusted.overlay.": b"overlay.",
    b"user.overlay.": b"overlay.",
    b"user.fuseoverlayfs.": b"fuseoverlayfs.",
    b"user.ufs.": b"ufs.",
    override.PREFIX: override.PREFIX,
}
"""By the beginning of a mark: what follows it in a name that is none."""

_MARKS: Final = tuple(_ESCAPES)
_ESCAPED: Final = tuple(mark + escape for mark, escape in _ESCAPES.items())


def stored(name: bytes, overrides: bool = False) -> bytes:
    """The name on disk of an attribute that shows; `overrides`: in a layer with owners in xattrs."""
    if name.startswith(_MARKS):
        mark = _mark(name)
        name = mark + _ESCAPES[mark] + name[len(mark) :]
    return override.stored_xattr(name) if overrides else name


def shown(name: bytes, overrides: bool = False) -> bytes | None:
    """The name that an attribute on disk shows by, None for a mark."""
    if overrides and not name.startswith(_ESCAPED):
        name = override.shown_xattr(name)
    if not name.startswith(_MARKS):
        return name
    if not name.startswith(_ESCAPED):
        return None
    mark = _mark(name)
    return mark + name[len(mark) + len(_ESCAPES[mark]) :]


def _mark(name: bytes) -> bytes:
    return next(mark for mark in _MARKS if name.startswith(mark))
