"""Requests to one registry: authorised, asked again where that helps, redirected without taking credentials along.

OCI distribution specification 1.1; Docker's "Token Authentication Specification".
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from urllib.parse import urlsplit

import httpx
import trio

from launcher.errors import UfsError
from launcher.image import typed
from launcher.registry import challenge, tls
from launcher.registry.authorization import Authorization
from launcher.registry.credentials import Credentials
from launcher.registry.endpoints import Endpoint
from launcher.registry.patience import AGAIN, Patience
from unionfs import __version__

_REDIRECTS = 5
_REDIRECTED = frozenset({301, 302, 303, 307, 308})
_TIMEOUT = httpx.Timeout(60, connect=30)
_AGENT = {"User-Agent": f"ufs/{__version__}"}

Content = bytes | None


class Refused(UfsError):
    """The registry's answer is a refusal; `code` is its HTTP status."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Session:
    """One registry. As an asynchronous context manager; leaving it closes the connections.

    Errors are UfsErrors in one line. Bodies are raw: a layer's own compression is not the transfer's.
    """

    def __init__(self, endpoint: Endpoint, credentials: Credentials | None, scopes: Sequence[str] = ()) -> None:
        self.endpoint = endpoint
        self._context = tls.context(endpoint.host, endpoint.insecure)
        self._scheme = "https"
        self._known = not endpoint.insecure  # whether it is known how to talk to it
        self._authorization = Authorization(credentials, scopes, self._fetch)
        # Documents come over HTTP/2 where it is offered. Blobs do not: the protocol in Python costs more than the
        # connections that it saves (docs/registries.md has the figures).
        self._documents = httpx.AsyncClient(http2=True, verify=self._context, timeout=_TIMEOUT, headers=_AGENT)
        self._blobs = httpx.AsyncClient(http2=False, verify=self._context, timeout=_TIMEOUT, headers=_AGENT)

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *_: object) -> None:
        with trio.CancelScope(shield=True):
            await self._documents.aclose()
            await self._blobs.aclose()

    def path(self, rest: str) -> str:
        """A URL path of the repository."""
        return f"/v2/{self.endpoint.repository}/{rest}"

    @asynccontextmanager
    async def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: Content = None,
        good: Sequence[int] = (200,),
        blob: bool = False,
        again: bool = True,
    ) -> AsyncIterator[httpx.Response]:
        """The response to one request, its body not read yet. `path` may be a whole URL that the registry gave.

        `Refused` for a status that is not in `good`; with `again`, after having asked again where that may help.
        Without it a connection that fails is the caller's business, as an httpx.TransportError.
        """
        patience = Patience()
        while True:
            try:
                response = await self._authorised(method, path, headers or {}, content, blob)
            except httpx.TransportError as error:
                if not again:
                    raise
                delay = patience.delay() if _may_pass(error) else None
                if delay is None:
                    raise unreachable(self.endpoint.host, error) from None
                await trio.sleep(delay)
                continue
            try:
                if response.status_code in good:
                    yield response
                    return
                refused = await self._refused(response)
            finally:
                with trio.CancelScope(shield=True):
                    await response.aclose()
            delay = None
            if again and response.status_code in AGAIN:
                delay = patience.delay(response.headers.get("Retry-After"))
            if delay is None:
                raise refused
            await trio.sleep(delay)

    async def document(
        self, path: str, accept: Sequence[str] = (), limit: int = typed.MAX_DOCUMENT
    ) -> tuple[bytes, httpx.Headers]:
        """A body of at most `limit` bytes, and the headers that came with it."""
        headers = {"Accept": ", ".join(accept)} if accept else {}
        patience = Patience()
        while True:
            try:
                async with self.ask("GET", path, headers=headers) as response:
                    return await self._limited(response, path, limit), response.headers
            except httpx.TransportError as error:
                delay = patience.delay()
                if delay is None:
                    raise unreachable(self.endpoint.host, error) from None
                await trio.sleep(delay)

    async def _limited(self, response: httpx.Response, path: str, limit: int) -> bytes:
        data = bytearray()
        async for piece in response.aiter_bytes():
            data += piece
            if len(data) > limit:
                raise UfsError(f"{self.endpoint.host}{path} has more than {limit} bytes, the limit for a document")
        return bytes(data)

    # One request with all that belongs to it.

    async def _authorised(
        self, method: str, path: str, headers: Mapping[str, str], content: Content, blob: bool
    ) -> httpx.Response:
        await self._find_out()
        url = self._absolute(path)
        sent = self._authorization.header
        response = await self._redirected(method, url, headers, content, blob)
        if response.status_code == HTTPStatus.UNAUTHORIZED:
            asked = challenge.parse(", ".join(response.headers.get_list("WWW-Authenticate")))
            await response.aclose()
            if not await self._authorization.answer(asked, self.endpoint, sent):
                raise self._not_allowed()
            response = await self._redirected(method, url, headers, content, blob)
            if response.status_code == HTTPStatus.UNAUTHORIZED:
                await response.aclose()
                raise self._not_allowed()
        return response

    async def _redirected(
        self, method: str, url: str, headers: Mapping[str, str], content: Content, blob: bool
    ) -> httpx.Response:
        """Follow redirects; the Authorization header stays with the registry's own host (RFC 9110, 15.4)."""
        client = self._blobs if blob else self._documents
        for _ in range(_REDIRECTS):
            sent = dict(headers)
            if _origin(url) == _origin(self._absolute("/")) and self._authorization.header:
                sent["Authorization"] = self._authorization.header
            request = client.build_request(method, url, headers=sent, content=content)
            response = await client.send(request, stream=True)
            if response.status_code not in _REDIRECTED or method not in ("GET", "HEAD"):
                return response
            target = str(response.url.join(response.headers.get("Location", "")))
            await response.aclose()
            if urlsplit(target).scheme not in ("https", self._scheme):
                raise UfsError(f"{self.endpoint.host} redirects from HTTPS to {_host(target)} without; refused")
            url = target
        raise UfsError(f"{self.endpoint.host} redirects more than {_REDIRECTS} times")

    async def _fetch(
        self, method: str, url: str, headers: Mapping[str, str], form: Mapping[str, str] | None
    ) -> httpx.Response:
        """For tokens: a small answer, read whole, no redirects. An address without TLS only where the registry's is."""
        if urlsplit(url).scheme not in ("https", self._scheme):
            raise UfsError(f"{self.endpoint.host} wants credentials sent to {_host(url)} without TLS; refused")
        patience = Patience()
        while True:
            retry_after = None
            failure: UfsError
            try:
                async with self._documents.stream(method, url, headers=headers, data=form) as response:
                    data = await self._limited(response, urlsplit(url).path, typed.MAX_DOCUMENT)
                answer = httpx.Response(response.status_code, headers=response.headers, content=data)
                if response.status_code not in AGAIN:
                    return answer
                retry_after, failure = response.headers.get("Retry-After"), _status(_host(url), response.status_code)
            except httpx.TransportError as error:
                failure = unreachable(_host(url), error)
                if not _may_pass(error):
                    raise failure from None
            delay = patience.delay(retry_after)
            if delay is None:
                raise failure
            await trio.sleep(delay)

    async def _find_out(self) -> None:
        """Where TLS is not required: whether there is any."""
        if self._known:
            return
        try:
            await (await self._documents.send(self._documents.build_request("GET", self._absolute("/v2/")))).aclose()
        except httpx.TransportError as error:
            if not _speaks_no_tls(error):
                raise
            self._scheme = "http"
        self._known = True

    def _absolute(self, path: str) -> str:
        return path if "://" in path else f"{self._scheme}://{self.endpoint.host}{path}"

    # What is told to the user.

    def _not_allowed(self) -> Refused:
        host = self.endpoint.host
        if self._authorization.has_credentials:
            reason = f"{host} does not accept the credentials for {self.endpoint.repository or 'it'}"
            return Refused(f"{reason}; log in again: ufs login {host}", 401)
        what = (
            f"{self.endpoint.repository} is not there, or is private"
            if self.endpoint.repository
            else "it asks who you are"
        )
        return Refused(f"{host}: {what}; to log in: ufs login {host}", 401)

    async def _refused(self, response: httpx.Response) -> Refused:
        """With the registry's own words, cut and made printable (distribution specification, "Error Codes")."""
        try:
            data = await self._limited(response, response.url.path, 1 << 16)
            errors = typed.load(data, "answer")["errors"]
            said = "; ".join(f"{item.get('code', '')} {item.get('message', '')}".strip() for item in errors[:3])
        except (UfsError, httpx.TransportError, KeyError, TypeError, AttributeError, IndexError):
            said = ""
        printable = "".join(character if character.isprintable() else "?" for character in said)[:200]
        return _status(self.endpoint.host, response.status_code, response.url.path, printable)


def unreachable(host: str, error: httpx.TransportError) -> UfsError:
    """Why there was no answer, and what to do."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            hint = "put its authority into certs.d, or say --tls-verify=false"
            return UfsError(f"{host}: its certificate is not trusted ({cause.verify_message}); {hint}")
        cause = cause.__cause__ or cause.__context__
    if _speaks_no_tls(error):
        hint = "where plain HTTP is meant say --tls-verify=false, or insecure = true in registries.conf"
        return UfsError(f"{host} does not speak TLS; {hint}")
    if isinstance(error, httpx.TimeoutException):
        return UfsError(f"{host} does not answer; is there a network, and is a proxy needed (HTTPS_PROXY)?")
    reason = str(error) or type(error).__name__
    return UfsError(f"{host} cannot be reached: {reason}; is the name right, is there a network?")


def _speaks_no_tls(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLCertVerificationError):
            return (cause.reason or "") in (
                "WRONG_VERSION_NUMBER",
                "RECORD_LAYER_FAILURE",
                "HTTP_REQUEST",
                "PACKET_LENGTH_TOO_LONG",
            )
        cause = cause.__cause__ or cause.__context__
    return False


def _may_pass(error: httpx.TransportError) -> bool:
    """Whether it may be otherwise in a moment: a certificate will not, nor a host without a registry or a network."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (ssl.SSLError, socket.gaierror, ConnectionRefusedError)):
            return False
        cause = cause.__cause__ or cause.__context__
    return not isinstance(error, (httpx.UnsupportedProtocol, httpx.ProxyError))


def _status(host: str, code: int, path: str = "", said: str = "") -> Refused:
    try:
        phrase = HTTPStatus(code).phrase
    except ValueError:
        phrase = "unknown status"
    words = f": {said}" if said else ""
    return Refused(f"{host}{path} answers {code} {phrase}{words}", code)


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _host(url: str) -> str:
    return urlsplit(url).netloc or url
