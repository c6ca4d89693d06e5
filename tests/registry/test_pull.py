"""Pulling from real registries: what is then in the store, and what is not asked for."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.images import Images
from tests.registry import servers
from tests.registry.conftest import configure
from tests.registry.proxy import Exchange, Proxy
from tests.registry.servers import Authority, TokenServer
from tests.support.users import User
from tests.support.waiting import wait_until

PLAIN = "--tls-verify=false"


def digest_in(host: str, name: str) -> str:
    """What the registry itself says a name leads to, by skopeo."""
    command = ["skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", f"docker://{host}/{name}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_a_pulled_image_runs_and_is_what_the_registry_has(plainly: User, registry: str) -> None:
    done = plainly.run(["ufs", "pull", f"{registry}/box:1"], check=True)
    assert f"Digest: {digest_in(registry, 'box:1')}" in done.stdout
    assert f"Status: Downloaded newer image for {registry}/box:1" in done.stdout
    assert plainly.run(["ufs-run", "--rm", f"{registry}/box:1", "echo", "hi"], check=True).stdout == "hi\n"
    assert not os.listdir(plainly.store / "partial")


@pytest.mark.only_root
@pytest.mark.parametrize("tag", ["zstd", "gzip"])
def test_the_store_is_a_layout_that_skopeo_copies_with_the_same_digests(
    root_user: User, registry: str, tag: str, tmp_path: Path
) -> None:
    name = f"{registry}/tricky:{tag}"
    root_user.run(["ufs", "pull", PLAIN, "-q", name], check=True)
    command = ["skopeo", "copy", "-q", f"oci:{root_user.store}:{name}", f"dir:{tmp_path / 'copy'}"]
    subprocess.run(command, check=True)
    inspect = ["skopeo", "inspect", "--format", "{{.Digest}}", f"dir:{tmp_path / 'copy'}"]
    assert subprocess.run(inspect, check=True, capture_output=True, text=True).stdout.strip() == digest_in(
        registry, f"tricky:{tag}"
    )


@pytest.mark.only_root
def test_a_second_pull_asks_for_the_digest_alone(root_user: User, proxy: Proxy) -> None:
    name = f"{proxy.host}/tricky:gzip"
    root_user.run(["ufs", "pull", PLAIN, name], check=True)
    proxy.seen.clear()
    done = root_user.run(["ufs", "pull", PLAIN, name], check=True)
    assert "Image is up to date" in done.stdout
    assert [(method, path) for method, path, _ in proxy.seen if path != "/v2/"] == [
        ("HEAD", "/v2/tricky/manifests/gzip")
    ]


@pytest.mark.only_root
def test_layers_that_the_store_has_are_not_fetched(root_user: User, proxy: Proxy, images: Images) -> None:
    root_user.run(["ufs", "load", images.path("tricky", "gzip.oci")], check=True)
    root_user.run(["ufs", "pull", PLAIN, f"{proxy.host}/tricky:gzip"], check=True)
    config = [path for path in proxy.requests("GET", "/blobs/")]
    assert len(config) == 1


@pytest.mark.only_root
def test_a_name_with_a_digest_is_verified_and_found_again(root_user: User, registry: str) -> None:
    digest = digest_in(registry, "box:1")
    name = f"{registry}/box@{digest}"
    root_user.run(["ufs", "pull", PLAIN, name], check=True)
    assert root_user.run(["ufs-run", "--rm", name, "echo", "hi"], check=True).stdout == "hi\n"
    other = f"{registry}/box@sha256:{'0' * 64}"
    assert root_user.run(["ufs", "pull", PLAIN, other]).stderr.startswith(f"ufs: {registry} has no image")


@pytest.mark.only_root
def test_of_an_index_the_image_for_the_platform_is_taken(root_user: User, registry: str, images: Images) -> None:
    """Two platforms in one manifest list, made by buildah; the digest of the list is what the name leads to."""
    home = root_user.temp
    ours, other = (f"oci:{images.path(name, 'gzip.oci')}" for name in ("busybox", "tricky"))
    script = f"""set -e
buildah manifest create many
buildah manifest add --os linux --arch amd64 many {ours}
buildah manifest add --os linux --arch arm64 many {other}
buildah manifest push -q --all --tls-verify=false many docker://{registry}/many:1
buildah manifest rm many"""
    env = {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
    root_user.run(["sh", "-c", script], check=True, env=env, cwd=home)
    done = root_user.run(["ufs", "pull", PLAIN, f"{registry}/many:1"], check=True)
    listed = digest_in(registry, "many:1")
    assert f"Digest: {listed}" in done.stdout
    assert root_user.run(["ufs-run", "--rm", f"{registry}/many@{listed}", "echo", "hi"], check=True).stdout == "hi\n"
    wrong = root_user.run(["ufs", "pull", PLAIN, "--platform", "linux/s390x", f"{registry}/many:1"])
    assert "it has linux/amd64, linux/arm64" in wrong.stderr


@pytest.mark.only_root
def test_all_tags(root_user: User, registry: str) -> None:
    root_user.run(["ufs", "pull", PLAIN, "-q", "-a", f"{registry}/tricky"], check=True)
    listed = json.loads(root_user.run(["ufs", "images", "--json"], check=True).stdout)
    assert sorted(row["tag"] for row in listed) == ["gzip", "zstd"]


@pytest.mark.only_root
def test_a_killed_pull_goes_on_where_it_was(root_user: User, proxy: Proxy) -> None:
    """The proxy holds the rest of the largest layer back until the command is dead."""
    name = f"{proxy.host}/box:1"

    def half(exchange: Exchange) -> bool:
        if not exchange.is_blob or exchange.headers.get("Range"):
            return False
        _, data = exchange.body()
        if len(data) < 100_000:
            return exchange.answer(200, {}, data)
        exchange.handler.send_response(200)
        exchange.handler.send_header("Content-Length", str(len(data)))
        exchange.handler.end_headers()
        exchange.handler.wfile.write(data[:70_000])
        exchange.handler.wfile.flush()
        exchange.handler.rfile.read(1)  # until the other end is gone
        return exchange.cut()

    proxy.faults.append(half)
    process = root_user.popen(["ufs", "pull", PLAIN, name], stderr=subprocess.DEVNULL)
    partial = root_user.store / "partial"
    wait_until(
        lambda: partial.exists() and sum(file.stat().st_size for file in partial.iterdir()) == 70_000, "half of it"
    )
    process.send_signal(signal.SIGKILL)
    process.wait()
    proxy.faults.clear()
    proxy.seen.clear()
    root_user.run(["ufs", "pull", PLAIN, name], check=True)
    ranges = [headers.get("range") for method, path, headers in proxy.seen if method == "GET" and "/blobs/" in path]
    assert "bytes=70000-" in ranges
    assert root_user.run(["ufs-run", "--rm", name, "echo", "hi"], check=True).stdout == "hi\n"


@pytest.mark.only_root
def test_two_pulls_at_once_fetch_each_layer_once(root_user: User, proxy: Proxy) -> None:
    name = f"{proxy.host}/tricky:gzip"
    both = [root_user.popen(["ufs", "pull", PLAIN, "-q", name], stdout=subprocess.PIPE) for _ in range(2)]
    ids = {process.communicate(timeout=60)[0] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(ids) == 1
    layers = [path for path in proxy.requests("GET", "/blobs/")]
    assert len(layers) <= len(set(layers)) + 1  # the config is read by both
    assert not os.listdir(root_user.store / "partial")


@pytest.mark.only_root
def test_tls_with_an_authority_of_certs_d(root_user: User, encrypted: str, authority: Authority) -> None:
    name = f"{encrypted}/box:1"
    refused = root_user.run(["ufs", "pull", name])
    assert refused.returncode == 1
    assert f"{encrypted}: its certificate is not trusted" in refused.stderr
    assert "certs.d" in refused.stderr
    configure(root_user, authority.certificate.read_text(), f"certs.d/{encrypted}/ca.crt")
    root_user.run(["ufs", "pull", name], check=True)


@pytest.mark.only_root
def test_a_mirror_is_asked_first_and_the_registry_where_it_fails(
    root_user: User, registry: str, encrypted: str, authority: Authority
) -> None:
    """The registry itself is `encrypted`; one mirror is the plain one, the other is not there."""
    configure(root_user, authority.certificate.read_text(), f"certs.d/{encrypted}/ca.crt")
    rule = f'[[registry]]\nlocation = "{encrypted}"\n[[registry.mirror]]\nlocation = "%s"\ninsecure = true\n'
    with Proxy(registry) as mirror:
        configure(root_user, rule % mirror.host)
        root_user.run(["ufs", "pull", f"{encrypted}/box:1"], check=True)
        assert mirror.requests("GET", "/v2/box/blobs/")
    configure(root_user, rule % f"{registry}/nowhere")
    root_user.run(["ufs", "pull", f"{encrypted}/tricky:gzip"], check=True)


@pytest.mark.only_root
def test_blocked_names_and_aliases(root_user: User, registry: str) -> None:
    configure(
        root_user,
        f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n'
        f'[[registry]]\nlocation = "{registry}/tricky"\nblocked = true\n[aliases]\nbox = "{registry}/box"\n',
    )
    assert "is blocked by registries.conf" in root_user.run(["ufs", "pull", f"{registry}/tricky:gzip"]).stderr
    assert f"{registry}/box:1" in root_user.run(["ufs", "pull", "box:1"], check=True).stdout


@pytest.mark.only_root
def test_a_token_is_fetched_for_who_is_logged_in(root_user: User, tokened: str, tokens: TokenServer) -> None:
    name = f"{tokened}/box:1"
    refused = root_user.run(["ufs", "pull", PLAIN, name])
    assert "ufs login" in refused.stderr
    login = ["ufs", "login", PLAIN, "-u", servers.USER, "--password-stdin", tokened]
    wrong = root_user.run(login, input="wrong\n")
    assert wrong.returncode == 1
    assert "wrong" not in wrong.stderr
    root_user.run(login, input=f"{servers.PASSWORD}\n", check=True)
    root_user.run(["ufs", "pull", PLAIN, name], check=True)
    assert "GET repository:box:pull known" in tokens.asked


@pytest.mark.only_root
def test_a_refresh_token_of_a_helper(root_user: User, tokened: str, tokens: TokenServer) -> None:
    helper = root_user.temp / "docker-credential-test"
    answer = json.dumps({"ServerURL": tokened, "Username": "<token>", "Secret": servers.REFRESH})
    helper.write_text(f"#!/bin/sh\ncat >{root_user.temp}/asked\necho '{answer}'\n")
    helper.chmod(0o755)
    docker = root_user.home / ".docker"
    docker.mkdir()
    (docker / "config.json").write_text(json.dumps({"credHelpers": {tokened: "test"}}))
    path = {"PATH": f"{root_user.temp}:{root_user.env['PATH']}"}
    root_user.run(["ufs", "pull", PLAIN, f"{tokened}/box:1"], check=True, env=path)
    assert (root_user.temp / "asked").read_text() == tokened
    assert "POST repository:box:pull known" in tokens.asked


@pytest.mark.only_root
def test_basic_credentials_of_podman_and_docker(root_user: User, guarded: str) -> None:
    login = ["podman", "login", PLAIN, "-u", servers.USER, "-p", servers.PASSWORD, guarded]
    root_user.run(login, check=True)
    root_user.run(["ufs", "pull", PLAIN, f"{guarded}/box:1"], check=True)
    root_user.run(["ufs", "logout", guarded], check=True)
    refused = root_user.run(["ufs", "pull", PLAIN, f"{guarded}/tricky:gzip"])
    assert refused.returncode == 1
    assert f"ufs login {guarded}" in refused.stderr


@pytest.mark.only_root
@pytest.mark.parametrize("content_type", ["text/plain; charset=utf-8", "application/json", "application/octet-stream"])
def test_a_registry_that_does_not_say_what_a_manifest_is(root_user: User, proxy: Proxy, content_type: str) -> None:
    """Old ones and plain web servers; the manifest itself says nothing either, so its fields do."""

    def silent(exchange: Exchange) -> bool:
        if exchange.method != "GET" or "/manifests/" not in exchange.path:
            return False
        document = json.loads(exchange.body()[1])
        document.pop("mediaType", None)
        if exchange.path.endswith("/gzip"):  # the tag is led through an index, as untold
            inner = json.dumps(document).encode()
            digest = f"sha256:{hashlib.sha256(inner).hexdigest()}"
            seen[f"/{digest}"] = inner
            document = {"manifests": [{"digest": digest, "size": len(inner)}]}
        return exchange.answer(200, {"Content-Type": content_type}, json.dumps(document).encode())

    def inner(exchange: Exchange) -> bool:
        found = [data for end, data in seen.items() if exchange.path.endswith(end)]
        return bool(found) and exchange.answer(200, {"Content-Type": content_type}, found[0])

    seen: dict[str, bytes] = {}
    proxy.faults += [inner, silent]
    root_user.run(["ufs", "pull", PLAIN, f"{proxy.host}/tricky:gzip"], check=True)
    assert f"{proxy.host}/tricky" in root_user.run(["ufs", "images"], check=True).stdout
