"""Registries with real images in them, made by skopeo and buildah's images."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.images import Images
from tests.registry import servers
from tests.registry.proxy import Proxy
from tests.registry.servers import Authority, TokenServer
from tests.support.users import User


def fill(host: str, images: Images, *more: str) -> None:
    """Put images into a registry, by skopeo: box:1 (gzip), tricky:zstd and tricky:gzip."""
    for name, form, target in (
        ("busybox", "gzip.oci", "box:1"),
        ("tricky", "zstd.oci", "tricky:zstd"),
        ("tricky", "gzip.oci", "tricky:gzip"),
    ):
        source = f"oci:{images.path(name, form)}"
        command = ["skopeo", "copy", "-q", "--dest-tls-verify=false", *more, source, f"docker://{host}/{target}"]
        subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("registries")


@pytest.fixture(scope="session")
def authority(folder: Path) -> Authority:
    return Authority(folder)


@pytest.fixture(scope="module")
def registry(folder: Path, images: Images, request: pytest.FixtureRequest) -> Iterator[str]:
    """HOST:PORT of a registry without TLS and passwords."""
    with servers.serving(folder, f"plain-{request.module.__name__}") as host:
        fill(host, images)
        yield host


@pytest.fixture
def proxy(registry: str) -> Iterator[Proxy]:
    with Proxy(registry) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def guarded(folder: Path, images: Images) -> Iterator[str]:
    """A registry behind a user name and a password."""
    with servers.serving(folder, "guarded", auth=servers.with_password(folder)) as host:
        fill(host, images, "--dest-creds", f"{servers.USER}:{servers.PASSWORD}")
        yield host


@pytest.fixture(scope="module")
def tokens(authority: Authority) -> Iterator[TokenServer]:
    with TokenServer(authority) as server:
        yield server


@pytest.fixture(scope="module")
def tokened(folder: Path, authority: Authority, tokens: TokenServer, images: Images) -> Iterator[str]:
    """A registry that believes the tokens of `tokens`."""
    with servers.serving(folder, "tokened", auth=authority.token_auth(tokens.realm)) as host:
        fill(host, images, "--dest-creds", f"{servers.USER}:{servers.PASSWORD}")
        yield host


@pytest.fixture(scope="module")
def encrypted(folder: Path, authority: Authority, images: Images) -> Iterator[str]:
    """A registry with TLS, its certificate signed by `authority`."""
    with servers.serving(folder, "encrypted", http=authority.tls()) as host:
        fill(host, images)
        yield host


def configure(user: User, text: str, name: str = "registries.conf") -> None:
    """Write one of the user's files below ~/.config/containers."""
    path = Path(user.env["XDG_CONFIG_HOME"]) / "containers" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    user.own(path.parent)


@pytest.fixture
def plainly(user: User, registry: str) -> User:
    """A user whose registries.conf says that the plain registry has no TLS."""
    configure(user, f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n')
    return user
