"""The large file of the content: its bytes, and whether a file has the bytes that it must."""

from __future__ import annotations

from pathlib import Path

from tests.support.content import BIG
from tests.support.systems import System

CONTENT = b"0123456789abcdef" * (BIG // 16)


def check(system: System, path: Path, content: bytes) -> None:
    """A file has this content, also after a remount."""
    assert path.stat().st_size == len(content)
    assert path.read_bytes() == content
    system.remount()
    assert path.read_bytes() == content
