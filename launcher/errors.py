"""What reaches the user of the launcher when something cannot be done."""

from __future__ import annotations

import os
from contextlib import suppress


class UfsError(Exception):
    """One line that names the thing, the cause and what to do; `status` is the exit status it ends with."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def describe(error: Exception) -> str:
    """Any exception on one line. One that no code expects comes with the place, for whoever mends it."""
    if isinstance(error, UfsError):
        return str(error)
    if isinstance(error, OSError):
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    at = f" ({os.path.basename(place.tb_frame.f_code.co_filename)}, line {place.tb_lineno})" if place else ""
    return " ".join(f"unforeseen {type(error).__name__}: {error}{at}".split())


def printable(text: str) -> str:
    """Text of a stranger on one line, without what a terminal would obey: C0 and C1 controls, bidirectional marks.

    Bytes that are no UTF-8 stay what they are, but for those that are C1 controls to a terminal of another encoding.
    """
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    number = ord(character)
    if character.isprintable() or 0xDCA0 <= number <= 0xDCFF:
        return character
    if 0xDC80 <= number <= 0xDC9F:  # the byte 0x80 to 0x9f (surrogateescape)
        number -= 0xDC00
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def complain(line: str) -> None:
    """One line on standard error. Where nobody can hear it that is no error: the status is still to be seen."""
    with suppress(OSError):
        os.write(2, f"ufs: {printable(line)}\n".encode(errors="surrogateescape"))
