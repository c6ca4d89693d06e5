"""The files that say where registries are and who one is there; challenges, waits and searches."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from launcher.errors import UfsError
from launcher.image import reference
from launcher.registry import challenge, credentials
from launcher.registry.endpoints import Registries
from launcher.registry.patience import ATTEMPTS, Patience
from tests.registry.proxy import Exchange, Proxy
from tests.support.users import User


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own configuration, without the machine's."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    for name in ("config/containers", "run/containers", "docker"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


RULES = """
[[registry]]
prefix = "example.com/team"
location = "inner.example:5000/all"
[[registry.mirror]]
location = "mirror.example/team"
insecure = true
[[registry.mirror]]
location = "frozen.example/team"
pull-from-mirror = "digest-only"
[[registry]]
prefix = "*.blocked.example"
blocked = true
"""

PLACES = [
    ("example.com/team/tool:1", ["mirror.example/team/tool", "inner.example:5000/all/tool"]),
    ("example.com/teamwork/tool:1", ["example.com/teamwork/tool"]),
    (
        f"example.com/team/tool@sha256:{'a' * 64}",
        ["mirror.example/team/tool", "frozen.example/team/tool", "inner.example:5000/all/tool"],
    ),
    ("alpine", ["registry-1.docker.io/library/alpine"]),
]


@pytest.mark.parametrize(("name", "places"), PLACES)
def test_where_a_name_is_looked_for(home: Path, name: str, places: list[str]) -> None:
    (home / "config/containers/registries.conf").write_text(RULES)
    found = Registries.read().endpoints(reference.parse(name))
    assert [endpoint.where for endpoint in found] == places


def test_blocked_and_malformed_rules(home: Path) -> None:
    file = home / "config/containers/registries.conf"
    file.write_text(RULES)
    with pytest.raises(UfsError, match="is blocked"):
        Registries.read().endpoints(reference.parse("a.blocked.example/x"))
    for text in (
        "[[registry",
        '[registry]\nlocation = "x"',
        "[[registry]]\nblocked = true",
        "[[registry]]\nlocation=1",
    ):
        file.write_text(text)
        with pytest.raises(UfsError, match=r"registries\.conf"):
            Registries.read()


def encoded(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_the_longest_key_and_the_first_file_count(home: Path) -> None:
    podman = {"example.com": encoded("whole", "1"), "example.com/team": encoded("team", "2")}
    (home / "run/containers/auth.json").write_text(json.dumps({"auths": podman}))
    docker = {"https://index.docker.io/v1/": encoded("hub", "3"), "example.com": encoded("later", "4")}
    (home / "docker/config.json").write_text(json.dumps({"auths": docker}))
    wanted = {"team/tool": "team", "teamwork/tool": "whole", "": "whole"}
    for repository, user in wanted.items():
        found = credentials.find("example.com", repository)
        assert found is not None
        assert found.user == user
    hub = credentials.find("docker.io", "library/alpine")
    assert hub == credentials.Credentials("hub", "3")
    assert "3" not in repr(hub)
    assert credentials.find("other.example") is None


def test_what_is_stored_only_its_owner_reads_and_can_be_erased(home: Path) -> None:
    path = Path(credentials.store("example.com", credentials.Credentials("me", "secret")))
    assert path.stat().st_mode & 0o077 == 0
    assert credentials.logged_in() == ["example.com"]
    assert credentials.erase("example.com") == [str(path)]
    assert credentials.find("example.com") is None


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": {"example.com": {"auth": "%%%"}}}'])
def test_a_malformed_file_is_named_without_its_content(home: Path, text: str) -> None:
    (home / "run/containers/auth.json").write_text(text)
    with pytest.raises(UfsError, match=r"auth\.json") as caught:
        credentials.find("example.com")
    assert "%%%" not in str(caught.value)


CHALLENGES = [
    ('Bearer realm="https://a/token",service="s",scope="repository:x:pull"', [("bearer", 3)]),
    ('Basic realm="a, b = \\"c\\""', [("basic", 1)]),
    ('Negotiate, Basic realm="x"', [("negotiate", 0), ("basic", 1)]),
    ("", []),
    ("=", []),
]


@pytest.mark.parametrize(("header", "wanted"), CHALLENGES)
def test_challenges(header: str, wanted: list[tuple[str, int]]) -> None:
    found = challenge.parse(header)
    assert [(one.scheme, len(one.parameters)) for one in found] == wanted


def test_patience_ends_is_renewed_by_progress_and_does_as_it_is_told() -> None:
    patience = Patience()
    delays = [patience.delay() for _ in range(ATTEMPTS)]
    assert delays[-1] is None
    assert all(delay is not None and 0 <= delay <= 20 for delay in delays[:-1])
    patience.progressed()
    assert patience.delay("7") == 7
    assert patience.delay("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert patience.delay("999999") is None
    assert Patience().delay("soon") is not None


SEARCHED = {
    "results": [
        {"name": "box", "description": "a \u001b[31mbox\nof things", "star_count": 7, "is_official": True},
        {"name": "me/box", "description": None, "star_count": 1, "is_official": False},
    ]
}


@pytest.mark.only_root
def test_search_by_the_registrys_own_and_by_its_catalogue(root_user: User, proxy: Proxy) -> None:
    search = ["ufs", "search", "--tls-verify=false"]
    rows = root_user.run([*search, f"{proxy.host}/rick"], check=True).stdout.splitlines()
    assert [row.split("\t")[0] for row in rows] == [f"{proxy.host}/tricky"]
    assert root_user.run([*search, f"{proxy.host}/nothing-like-it"], check=True).stdout == ""

    def own(exchange: Exchange) -> bool:
        return exchange.path.startswith("/v1/search?q=box&n=5") and exchange.answer(
            200, {}, json.dumps(SEARCHED).encode()
        )

    proxy.faults.append(own)
    limited = [*search, "--limit", "5"]
    rows = root_user.run([*limited, f"{proxy.host}/box"], check=True).stdout.splitlines()
    assert rows == ["box\ta \\x1b[31mbox of things\t7\t[OK]", "me/box\t\t1\t"]
    form = ["--format", "{{.Name}}={{.StarCount}}"]
    assert root_user.run([*limited, *form, f"{proxy.host}/box"], check=True).stdout.splitlines() == [
        "box=7",
        "me/box=1",
    ]
    rows = root_user.run([*limited, "--filter", "stars=2", f"{proxy.host}/box"], check=True).stdout.splitlines()
    assert len(rows) == 1
    only = root_user.run([*limited, "--filter", "is-official=false", f"{proxy.host}/box"], check=True).stdout
    assert only.startswith("me/box")
    assert root_user.run([*search, "--filter", "colour=red", "x"]).returncode == 2
