"""A proxy in front of a registry that breaks what passes through it, as networks and servers do."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Fault = Callable[["Exchange"], bool]
"""Breaks one exchange; True where it has answered, so that nothing else is to be done."""


class Exchange:
    """One request and, once it was passed on, the registry's response."""

    def __init__(self, handler: BaseHTTPRequestHandler, number: int) -> None:
        self.handler = handler
        self.method = handler.command
        self.path = handler.path
        self.headers = handler.headers
        self.number = number  # of this method and path, from 1 on

    def answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> bool:
        """Answer instead of the registry."""
        self.handler.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.handler.send_header(name, value)
        self.handler.end_headers()
        self.handler.wfile.write(body)
        return True

    def cut(self) -> bool:
        """Close the connection without another byte."""
        self.handler.close_connection = True
        return True

    def body(self, extra_headers: dict[str, str] | None = None) -> tuple[HTTPResponse, bytes]:
        """What the registry answers to this."""
        connection = HTTPConnection(self.handler.server.upstream, timeout=30)  # type: ignore[attr-defined]
        headers = {key: value for key, value in self.headers.items() if key.lower() != "connection"}
        length = int(self.headers.get("Content-Length") or 0)
        sent = self.handler.rfile.read(length) if length else None
        connection.request(self.method, self.path, sent, headers | (extra_headers or {}))
        response = connection.getresponse()
        data = response.read()
        connection.close()
        return response, data

    def pass_on(
        self, change: Callable[[bytes], bytes] = bytes, *, cut_at: int | None = None, length: int | None = None
    ) -> bool:
        """Answer as the registry does, with other bytes, only so many of them, or another Content-Length."""
        response, data = self.body()
        data = change(data)
        self.handler.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.handler.send_header(name, value)
        if response.status not in (204, 304):
            stated = len(data) if length is None else length
            if self.method == "HEAD":
                stated = int(response.getheader("Content-Length") or 0)
            self.handler.send_header("Content-Length", str(stated))
        self.handler.end_headers()
        if self.method != "HEAD":
            self.handler.wfile.write(data if cut_at is None else data[:cut_at])
        if cut_at is not None and cut_at < len(data):
            self.handler.close_connection = True
        return True

    @property
    def is_blob(self) -> bool:
        """A layer or config is asked for."""
        return self.method == "GET" and "/blobs/sha256:" in self.path


class Proxy:
    """Listens on loopback until it is left; `faults` are tried in order, and what none answers passes on unchanged."""

    def __init__(self, upstream: str, certificate: tuple[Path, Path] | None = None) -> None:
        """`certificate` and its key: it has TLS, whatever the registry has."""
        self.faults: list[Fault] = []
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        counts: dict[tuple[str, str], int] = {}
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                with lock:
                    outer.seen.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
                    key = self.command, self.path
                    counts[key] = counts.get(key, 0) + 1
                    exchange = Exchange(self, counts[key])
                try:
                    if not any(fault(exchange) for fault in outer.faults):
                        exchange.pass_on()
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = _serve

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.upstream = upstream  # type: ignore[attr-defined]
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.host = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def requests(self, method: str, part: str = "") -> list[str]:
        """The paths of a method that were asked for, those with `part` in them."""
        return [path for verb, path, _ in self.seen if verb == method and part in path]
