"""Names of images: what they mean and which are none."""

from __future__ import annotations

import pytest

from launcher.errors import UfsError
from launcher.image import platforms, reference
from launcher.image.oci import Platform

DIGEST = "sha256:" + "0123456789abcdef" * 4
NORMAL = {
    "alpine": "docker.io/library/alpine:latest",
    "alpine:3.18": "docker.io/library/alpine:3.18",
    "me/tool": "docker.io/me/tool:latest",
    "docker.io/alpine": "docker.io/library/alpine:latest",
    "index.docker.io/me/tool:1": "docker.io/me/tool:1",
    "localhost/a": "localhost/a:latest",
    "localhost:5000/a/b:c": "localhost:5000/a/b:c",
    "ghcr.io/a/b/c@" + DIGEST: "ghcr.io/a/b/c@" + DIGEST,
    "a:1@" + DIGEST: "docker.io/library/a:1@" + DIGEST,
    "[::1]:5000/a": "[::1]:5000/a:latest",
    "a__b.c-d--e": "docker.io/library/a__b.c-d--e:latest",
    "127.0.0.1/x": "127.0.0.1/x:latest",
}
NONE = [
    "", ":", "a:", "a b", "Alpine", "a/../b", "../a", "/a", "a//b", "a/", "-a", "a___b", "a..b", "a@sha256:abc",
    "a@md5:" + "0" * 64, "a@", "a:" + "t" * 129, "a" * 256, "x" * 5000, "a\n", "a:b\n", "a:b:c", "\u00e4", "host:x/y/z",
    "a_.b",
]  # fmt: skip


@pytest.mark.parametrize("text", NORMAL)
def test_normalised(text: str) -> None:
    found = reference.parse(text)
    assert str(found) == NORMAL[text]
    assert reference.parse(str(found)) == found
    assert reference.parse(found.familiar) == found


@pytest.mark.parametrize("text", NONE)
def test_refused(text: str) -> None:
    with pytest.raises(UfsError, match="is not an image name") as raised:
        reference.parse(text)
    assert "\n" not in str(raised.value)


def test_familiar() -> None:
    assert reference.parse("docker.io/library/alpine").familiar == "alpine:latest"
    assert reference.parse("docker.io/me/tool:1").familiar == "me/tool:1"
    assert reference.parse("quay.io/me/tool:1").familiar == "quay.io/me/tool:1"


def test_ids() -> None:
    assert reference.id_prefix("abcd") == "abcd"
    assert reference.id_prefix("sha256:" + "a" * 64) == "a" * 64
    for text in ("abc", "abcg", "ABCD", "a" * 65, "sha512:abcd"):
        assert reference.id_prefix(text) is None


def test_platforms() -> None:
    assert platforms.parse("linux/arm/v7") == Platform("linux", "arm", "v7")
    assert platforms.parse("arm64") == Platform("linux", "arm64")
    for text in ("", "a/b/c/d", "linux/"):
        with pytest.raises(UfsError, match="is not a platform"):
            platforms.parse(text)
    assert platforms.matches(Platform("linux", "arm64"), Platform("linux", "arm64", "v8"))
    assert not platforms.matches(Platform("linux", "arm", "v6"), Platform("linux", "arm", "v7"))
    assert not platforms.matches(Platform("linux", "amd64"), Platform("linux", "amd64", "v3"))


@pytest.mark.parametrize(
    "name", ["docker.io/library/a/b:1", "docker.io/me.x/y:1", "docker.io/localhost/y:1", "docker.io/library/library:1"]
)
def test_the_familiar_form_means_the_same(name: str) -> None:
    assert str(reference.parse(reference.parse(name).familiar)) == name
