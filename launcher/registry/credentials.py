"""Who one is at a registry: the files and helpers of podman and Docker. Secrets are never printed, nor put into errors.

Looked at in this order (containers-auth.json(5); Docker's "config.json"):
$REGISTRY_AUTH_FILE alone where it is set, else $XDG_RUNTIME_DIR/containers/auth.json,
$XDG_CONFIG_HOME/containers/auth.json, $DOCKER_CONFIG/config.json. In each file a helper for the registry
(``credHelpers``), then ``auths``, then the file's helper for all (``credsStore``). Logging in writes where podman does.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any, NamedTuple

from launcher.errors import UfsError
from launcher.image.reference import DEFAULT_REGISTRY

_HUB_KEY = "https://index.docker.io/v1/"
"""What Docker files the credentials of docker.io under."""

_HELPER_SECONDS = 60
_TOKEN_USER = "<token>"
"""A helper's user name where its secret is a refresh token (docker-credential-helpers)."""


class Credentials(NamedTuple):
    """A user name with a password, or a refresh token alone."""

    user: str
    password: str
    refresh: str = ""

    def __repr__(self) -> str:
        return f"Credentials({self.user!r})"

    @property
    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def find(registry: str, repository: str = "") -> Credentials | None:
    """The credentials for a repository of a registry, by the longest key that names it; None for none."""
    keys = _keys(registry, repository)
    for path in _files():
        document = _load(path)
        if document is None:
            continue
        found = _in_file(document, keys, path)
        if found is not None:
            return found
    return None


def _in_file(document: dict[str, Any], keys: list[str], path: str) -> Credentials | None:
    helpers = document.get("credHelpers") or {}
    auths = document.get("auths") or {}
    everywhere = document.get("credsStore") or ""
    for key in keys:
        if helper := helpers.get(key):
            return _ask(helper, key)
        entry = auths.get(key)
        if entry:
            return _decoded(entry, f"{path}, {key}")
    if everywhere:
        for key in keys:
            if found := _ask(everywhere, key):
                return found
    return None


def store(registry: str, credentials: Credentials) -> str:
    """Keep credentials where the user's files say: by a helper, or in the file. Returns where, for the message."""
    path = _written()
    document = _load(path) or {}
    key = _keys(registry)[0]
    helper = (document.get("credHelpers") or {}).get(key) or document.get("credsStore")
    if helper:
        secret = credentials.refresh or credentials.password
        user = _TOKEN_USER if credentials.refresh else credentials.user
        _run(helper, "store", json.dumps({"ServerURL": key, "Username": user, "Secret": secret}))
        return f"docker-credential-{helper}"
    plain = base64.b64encode(f"{credentials.user}:{credentials.password}".encode()).decode()
    entry = {"auth": plain} | ({"identitytoken": credentials.refresh} if credentials.refresh else {})
    document.setdefault("auths", {})[key] = entry
    _publish(path, document)
    return path


def erase(registry: str) -> list[str]:
    """Forget a registry's credentials in every file and helper that has them; where they were."""
    gone = []
    keys = _keys(registry)
    for path in _files():
        document = _load(path)
        if document is None:
            continue
        helpers = document.get("credHelpers") or {}
        for key in keys:
            helper = helpers.get(key) or document.get("credsStore")
            if helper and _ask(helper, key):
                _run(helper, "erase", key)
                gone.append(f"docker-credential-{helper}")
        auths = document.get("auths") or {}
        had = [key for key in keys if key in auths]
        if had:
            for key in had:
                del auths[key]
            _publish(path, document)
            gone.append(path)
    return gone


def logged_in() -> list[str]:
    """The registries that the files have credentials for."""
    found: dict[str, None] = {}
    for path in _files():
        document = _load(path) or {}
        for key in [*(document.get("auths") or {}), *(document.get("credHelpers") or {})]:
            found[DEFAULT_REGISTRY if key == _HUB_KEY else key] = None
    return list(found)


def _keys(registry: str, repository: str = "") -> list[str]:
    """What credentials may be filed under, the most specific first."""
    parts = repository.split("/") if repository else []
    keys = ["/".join([registry, *parts[:count]]) for count in range(len(parts), 0, -1)]
    whole = [_HUB_KEY, DEFAULT_REGISTRY, "index.docker.io"] if registry == DEFAULT_REGISTRY else [registry]
    return keys + whole + [f"https://{registry}", f"http://{registry}", f"https://{registry}/v1/"]


def _files() -> Iterator[str]:
    named = os.environ.get("REGISTRY_AUTH_FILE")
    if named:
        yield named
        return
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield f"{runtime}/containers/auth.json"
    yield f"{os.environ.get('XDG_CONFIG_HOME') or os.path.expanduser('~/.config')}/containers/auth.json"
    yield f"{os.environ.get('DOCKER_CONFIG') or os.path.expanduser('~/.docker')}/config.json"


def _written() -> str:
    """The file that logging in writes: one that lasts, where there is no directory for the session."""
    return next(_files())


def _load(path: str) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as file:
            document = json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, UnicodeDecodeError):
        raise UfsError(f"{path} is not valid JSON; correct it, or move it away and log in again") from None
    if not isinstance(document, dict):
        raise UfsError(f"{path} is not a JSON object; correct it, or move it away and log in again")
    return document


def _publish(path: str, document: dict[str, Any]) -> None:
    """Replace a file; nobody else may read it, at no moment."""
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    path = os.path.realpath(path)
    temporary = f"{path}.{os.getpid()}"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w") as file:
            json.dump(document, file, indent=1)
            file.write("\n")
        os.rename(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def _decoded(entry: Any, what: str) -> Credentials | None:
    if not isinstance(entry, dict):
        return None
    refresh = entry.get("identitytoken") or ""
    encoded = entry.get("auth") or ""
    if not encoded:
        user, password = entry.get("username") or "", entry.get("password") or ""
        return Credentials(user, password, refresh) if user or refresh else None
    try:
        user, colon, password = base64.b64decode(encoded, validate=True).decode().rstrip("\0").partition(":")
    except (binascii.Error, UnicodeDecodeError, TypeError):
        colon = ""
    if not colon:
        raise UfsError(f"{what}: 'auth' is not the base64 of USER:PASSWORD; log in again")
    return Credentials(user, password, refresh)


def _ask(helper: str, key: str) -> Credentials | None:
    """What a credential helper has (docker-credential-helpers, "get"); None where it has nothing."""
    answer = _run(helper, "get", key, may_lack=True)
    if answer is None:
        return None
    try:
        document = json.loads(answer)
        user, secret = str(document["Username"]), str(document["Secret"])
    except (ValueError, KeyError, TypeError):
        raise UfsError(f"docker-credential-{helper} answered something that is no credential for {key}") from None
    return Credentials("", "", secret) if user == _TOKEN_USER else Credentials(user, secret)


def _run(helper: str, verb: str, text: str, may_lack: bool = False) -> str | None:
    program = f"docker-credential-{helper}"
    if not helper.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise UfsError(f"{helper!r} is not the name of a credential helper; correct credsStore or credHelpers")
    try:
        done = subprocess.run([program, verb], input=text, capture_output=True, text=True, timeout=_HELPER_SECONDS)
    except FileNotFoundError:
        raise UfsError(f"{program} is not installed, but the registry's credentials are kept by it") from None
    except subprocess.TimeoutExpired:
        raise UfsError(f"{program} {verb} did not answer in {_HELPER_SECONDS} seconds") from None
    if done.returncode == 0:
        return done.stdout
    # Helpers say on standard output that they have nothing; the text is the protocol's.
    if may_lack and "credentials not found" in done.stdout + done.stderr:
        return None
    raise UfsError(f"{program} {verb} ended with {done.returncode}")
