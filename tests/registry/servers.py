"""Debian's docker-registry on loopback: plain, behind a password or a token server, and with TLS from a test CA."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from tests.support.waiting import wait_until

USER, PASSWORD = "tester", "secret"
_HTPASSWD = f"{USER}:$2b$05$fqbpt81j87jEMr30D8CX1OuwF2gra88n9N6gwu46t4ovh0tKG/4ee\n"  # bcrypt of PASSWORD
SERVICE, ISSUER = "test-registry", "test-issuer"


class Registry(NamedTuple):
    """A running registry: HOST:PORT, and the certificate of its authority where it has TLS."""

    host: str
    authority: Path | None = None


@contextmanager
def serving(folder: Path, name: str, http: str = "", auth: str = "") -> Iterator[str]:
    """A registry with its data below `folder`; its HOST:PORT. `http` and `auth` are pieces of its YAML."""
    port = _free_port()
    config = folder / f"{name}.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder / name}}}}}\n"
        f"http:\n  addr: 127.0.0.1:{port}\n{http}{auth}"
    )
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", config], stdout=log, stderr=log)
    try:
        wait_until(lambda: _listens(port), f"the registry {name}")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def with_password(folder: Path) -> str:
    """The `auth` of a registry that wants a user name and a password."""
    (folder / "htpasswd").write_text(_HTPASSWD)
    return f"auth: {{htpasswd: {{realm: test, path: {folder / 'htpasswd'}}}}}\n"


class Authority:
    """A certificate authority of the tests, and one certificate for 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self.key = folder / "ca.crt", folder / "ca.key"
        self.server, self.server_key = folder / "server.crt", folder / "server.key"
        _openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test authority",
                 "-keyout", self.key, "-out", self.certificate)  # fmt: skip
        request, extension = folder / "server.csr", folder / "server.ext"
        extension.write_text("subjectAltName=IP:127.0.0.1\n")
        _openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1",
                 "-keyout", self.server_key, "-out", request)  # fmt: skip
        _openssl("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key, "-CAcreateserial",
                 "-days", "2", "-extfile", extension, "-out", self.server)  # fmt: skip

    def tls(self) -> str:
        """The `http` of a registry with TLS."""
        return f"  tls: {{certificate: {self.server}, key: {self.server_key}}}\n"

    def token_auth(self, realm: str) -> str:
        """The `auth` of a registry that believes tokens which this authority's certificate has signed."""
        return (
            f"auth: {{token: {{realm: '{realm}', service: {SERVICE}, issuer: {ISSUER}, "
            f"rootcertbundle: {self.certificate}}}}}\n"
        )

    def token(self, scopes: list[str]) -> str:
        """A JSON Web Token for scopes such as ``repository:NAME:pull,push`` (distribution, docs/spec/auth/jwt.md)."""
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        der = _openssl("x509", "-in", self.server, "-outform", "DER")
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        now = int(time.time())
        claims = {"iss": ISSUER, "sub": USER, "aud": SERVICE, "exp": now + 300, "nbf": now - 5, "iat": now}
        text = b".".join(_url64(json.dumps(part).encode()) for part in (header, claims | {"access": access}))
        signature = _openssl("dgst", "-sha256", "-sign", self.server_key, input=text)
        return (text + b"." + _url64(signature)).decode()


class TokenServer:
    """Gives tokens to who knows the password; to others only such that allow to pull from ``public/``."""

    def __init__(self, authority: Authority) -> None:
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                self._answer(query.get("scope", []), self.headers.get("Authorization") == _basic())

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                known = form.get("refresh_token") == [REFRESH] and form["grant_type"] == ["refresh_token"]
                self._answer(form.get("scope", [""])[0].split(), known)

            def _answer(self, scopes: list[str], known: bool) -> None:
                outer.asked.append(f"{self.command} {' '.join(scopes)} {'known' if known else 'unknown'}")
                if not known and "Authorization" in self.headers:
                    self.send_error(401)
                    return
                allowed = scopes if known else [s for s in scopes if s.startswith("repository:public/")]
                body = json.dumps({"token": authority.token(allowed)}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.realm = f"http://127.0.0.1:{self._server.server_port}/token"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> TokenServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


REFRESH = "a-refresh-token"


def _basic() -> str:
    return "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


def _url64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _openssl(*arguments: str | Path, input: bytes | None = None) -> bytes:
    done = subprocess.run(["openssl", *arguments], input=input, capture_output=True, check=True)
    return done.stdout


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
