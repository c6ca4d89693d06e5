"""Fixtures for tests that run containers."""

from __future__ import annotations

import pytest

from tests.images import Images
from tests.launcher.running import Runner
from tests.support.users import User


@pytest.fixture
def run(user: User, images: Images) -> Runner:
    """Commands in the busybox image, as each kind of user, in a fresh store."""
    return Runner(user, images.path("busybox", "docker.tar"))
