"""Every case runs on a plain directory and on mounts of both trees by both engines."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.big import CONTENT
from tests.support.systems import root, system

__all__ = ["path", "root", "system"]


@pytest.fixture(params=["big", "new"])
def path(request: pytest.FixtureRequest, root: Path) -> Path:
    """A file of the tree and a new one, of the same content."""
    path = root / request.param
    if request.param == "new":
        path.write_bytes(CONTENT)
    return path
