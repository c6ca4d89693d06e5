"""Pushing to real registries, and what other clients then read there."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.images import Images
from tests.registry import servers
from tests.registry.proxy import Exchange, Proxy
from tests.registry.test_pull import digest_in
from tests.support.users import User

pytestmark = pytest.mark.only_root

PLAIN = "--tls-verify=false"


def stored_digest(user: User, name: str) -> str:
    rows = json.loads(user.run(["ufs", "images", "--json", name], check=True).stdout)
    digest: str = rows[0]["digest"]
    return digest


@pytest.mark.parametrize("form", ["zstd.oci", "docker.tar"])
def test_a_pushed_image_has_its_digest_and_podman_pulls_it(
    root_user: User, registry: str, images: Images, form: str
) -> None:
    root_user.run(["ufs", "load", images.path("busybox", form)], check=True)
    name = root_user.run(["ufs", "images", "-q"], check=True).stdout.strip()
    target = f"{registry}/pushed/{form.partition('.')[0]}:1"
    done = root_user.run(["ufs", "push", PLAIN, name, target], check=True)
    digest = digest_in(registry, target.partition("/")[2])
    assert digest in done.stdout
    assert stored_digest(root_user, name) == digest
    pulled = root_user.run(["podman", "pull", "-q", PLAIN, target], check=True, env={"STORAGE_DRIVER": "vfs"})
    assert pulled.stdout.startswith(name)
    root_user.run(["podman", "rmi", "-f", target], check=True, env={"STORAGE_DRIVER": "vfs"})


def test_what_the_registry_has_is_not_sent(root_user: User, registry: str, proxy: Proxy) -> None:
    """Neither what is there under this name, nor what another repository has."""
    root_user.run(["ufs", "pull", PLAIN, f"{proxy.host}/tricky:gzip"], check=True)
    root_user.run(["ufs", "push", PLAIN, f"{proxy.host}/tricky:gzip", f"{proxy.host}/tricky:again"], check=True)
    assert not proxy.requests("POST")
    root_user.run(["ufs", "push", PLAIN, f"{proxy.host}/tricky:gzip", f"{proxy.host}/moved:1"], check=True)
    assert proxy.requests("POST", "from=tricky")
    assert len(proxy.requests("PATCH")) == 1  # the config: only layers are looked for elsewhere
    assert digest_in(registry, "moved:1") == digest_in(registry, "tricky:gzip")


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_chunk_that_failed_goes_on_where_the_registry_stands(
    root_user: User, registry: str, proxy: Proxy, images: Images, when: str
) -> None:
    def broken(exchange: Exchange) -> bool:
        if exchange.method != "PATCH" or len(proxy.requests("PATCH")) > 1:
            return False
        if when == "after":
            exchange.body()  # it has arrived, but nobody says so
        return exchange.cut()

    root_user.run(["ufs", "load", images.path("busybox", "gzip.oci")], check=True)
    name = root_user.run(["ufs", "images", "-q"], check=True).stdout.strip()
    proxy.faults.append(broken)
    root_user.run(["ufs", "push", PLAIN, name, f"{proxy.host}/chunks-{when}:1"], check=True)
    assert digest_in(registry, f"chunks-{when}:1") == stored_digest(root_user, name)


def test_who_may_not_push_is_told_to_log_in(root_user: User, guarded: str, images: Images) -> None:
    root_user.run(["ufs", "load", images.path("busybox", "gzip.oci")], check=True)
    name = root_user.run(["ufs", "images", "-q"], check=True).stdout.strip()
    refused = root_user.run(["ufs", "push", PLAIN, name, f"{guarded}/mine:1"])
    assert refused.returncode == 1
    assert f"ufs login {guarded}" in refused.stderr
    login = ["ufs", "login", PLAIN, "-u", servers.USER, "--password-stdin", guarded]
    assert "secret" not in root_user.run(login, input=servers.PASSWORD, check=True).stdout
    root_user.run(["ufs", "push", PLAIN, name, f"{guarded}/mine:1"], check=True)
    inspect = [
        "skopeo",
        "inspect",
        PLAIN,
        "--creds",
        f"{servers.USER}:{servers.PASSWORD}",
        f"docker://{guarded}/mine:1",
    ]
    subprocess.run(inspect, check=True, capture_output=True)
