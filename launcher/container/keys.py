"""The keys that leave an attached container: --detach-keys."""

from __future__ import annotations

from launcher.errors import UfsError


class DetachKeys:
    """Finds a sequence of keys in what is typed. What may be its beginning is held back until that is clear."""

    def __init__(self, text: str) -> None:
        """`text`: as Docker writes it, keys separated by commas, `a` or `ctrl-a`; "" for none."""
        self._keys = sequence(text)
        self._held = b""
        self.found = False

    def pass_on(self, data: bytes) -> bytes:
        """What of `data` is for the container. After the sequence nothing is."""
        if not self._keys:
            return data
        out = bytearray()
        for number in data:
            self._held += bytes([number])
            while not self._keys.startswith(self._held):
                out.append(self._held[0])
                self._held = self._held[1:]
            if self._held == self._keys:
                self.found = True
                break
        return bytes(out)


def checked(given: str | None, default: str) -> str:
    """--detach-keys where it is given, if it is a sequence of keys."""
    sequence(given or "")
    return default if given is None else given


def sequence(text: str) -> bytes:
    """The bytes that a sequence of keys sends. UfsError where it is none."""
    return bytes(_key(word, text) for word in text.split(",")) if text else b""


def _key(word: str, text: str) -> int:
    if len(word) == 1 and word.isascii():
        return ord(word)
    head, dash, last = word.partition("-")
    if head.lower() == "ctrl" and dash and len(last) == 1 and 64 <= ord(last.upper()) < 96:
        return ord(last.upper()) & 31
    raise UfsError(f"--detach-keys {text}: {word!r} is no key; write a letter or ctrl-LETTER, as ctrl-p,ctrl-q", 125)
