r"""Which directories an option names, whoever wrote it and however it was escaped on the way.

A backslash protects the character that would mean something here: ``\:``, ``\,``, ``\"`` and ``\\``. That is what the
kernel's overlayfs takes (ovl_parse_layer() of fs/overlayfs/params.c) and buildah writes. But containers/storage writes
names as they are, mount(8) passes on what its caller escaped, and where two parsers come in a row, as with libfuse's
(lib/fuse_opt.c), callers escape twice. So a text has several readings, and the first that names a directory is meant;
where none does, the first of all, which is then said to be missing. A text without backslashes and quotes is its only
reading.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator

_SPECIAL = re.compile(r'\\([\\:,"])')
_SEPARATOR = re.compile(r"\\([:,])")
_EVERYTHING = re.compile(r"\\([0-3][0-7]{2}|.)", re.DOTALL)
_COLON = re.compile(r"(\\*):")


def directory(text: str) -> str:
    """The directory that ``upperdir=`` or ``workdir=`` names."""
    if _quoted(text):
        return _found(text) or directory(text[1:-1])
    return _found(text) or next(_readings(text))


def directories(text: str) -> list[str]:
    """The directories that ``lowerdir=`` names, between colons. What is empty is passed over."""
    if _quoted(text):
        literal = [_found(part) for part in text.split(":")]
        return [name for name in literal if name] if all(literal) else directories(text[1:-1])
    parts = []
    while text:
        name, text = _first(text)
        if name:
            parts.append(name)
    return parts


def unescaped(text: str) -> str:
    """The value of an option that names no directory."""
    if _quoted(text):
        text = text[1:-1]
    return _SPECIAL.sub(r"\1", text)


def _quoted(text: str) -> bool:
    return len(text) > 1 and text[0] == text[-1] == '"'


def _first(text: str) -> tuple[str, str]:
    """The first directory of several, and the text after it."""
    ends = list(_ends(text))
    for end in ends:
        if found := _found(text[:end]):
            return found, text[end + 1 :]
    return next(_readings(text[: ends[0]])), text[ends[0] + 1 :]


def _ends(text: str) -> Iterator[int]:
    r"""Where the first name may end, most probably first.

    A colon on its own always ends it. After an odd number of backslashes it belongs to the name (``\:``), after an even
    one it ends a name that ends in a backslash; both unless no such directory is there.
    """
    less_probable = []
    for colon in _COLON.finditer(text):
        backslashes = len(colon[1])
        if backslashes % 2:
            less_probable.append(colon.end() - 1)
            continue
        yield colon.end() - 1
        if not backslashes:
            break
    else:
        yield len(text)
    yield from less_probable


def _found(text: str) -> str | None:
    """The first reading that is a directory; a text that can be read in one way alone is not asked for."""
    if not text or not ("\\" in text or '"' in text):
        return text or None
    return next(filter(_is_directory, _readings(text)), None)


def _readings(text: str) -> Iterator[str]:
    once = _SPECIAL.sub(r"\1", text)
    yield once
    yield _SEPARATOR.sub(r"\1", text)
    yield _SPECIAL.sub(r"\1", once)
    yield _EVERYTHING.sub(lambda match: chr(int(match[1], 8)) if match[1].isdigit() else match[1], text)
    yield text


def _is_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # it is there, and mounting will say what is wrong with it
        return True
