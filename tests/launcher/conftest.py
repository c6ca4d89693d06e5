"""Fixtures for tests that run containers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.images import Images
from tests.launcher.containers import Containers
from tests.launcher.running import Runner
from tests.support.users import User


@pytest.fixture
def run(user: User, images: Images) -> Runner:
    """Commands in the busybox image, as each kind of user, in a fresh store."""
    return Runner(user, images.path("busybox", "docker.tar"))


@pytest.fixture
def ufs(user: User, images: Images) -> Iterator[Containers]:
    """`ufs` as each kind of user, in a fresh store."""
    made = Containers(user, images.path("busybox", "docker.tar"))
    yield made
    made.close()


@pytest.fixture
def root_ufs(root_user: User, images: Images) -> Iterator[Containers]:
    """`ufs` as one user alone, for what is the same for every kind."""
    made = Containers(root_user, images.path("busybox", "docker.tar"))
    yield made
    made.close()
