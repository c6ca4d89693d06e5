"""Answering a registry's challenge: Basic with a password, Bearer with a token that its token server gives.

Docker's "Token Authentication Specification" (distribution, docs/spec/auth/token.md) and "OAuth2 Token Authentication".
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import trio

from launcher.errors import UfsError
from launcher.registry.challenge import Challenge
from launcher.registry.credentials import Credentials
from launcher.registry.endpoints import Endpoint

if TYPE_CHECKING:
    import httpx

_CLIENT = "ufs"

Fetch = Callable[[str, str, Mapping[str, str], Mapping[str, str] | None], "Awaitable[httpx.Response]"]
"""(method, URL, headers, form or None) to a response that is read whole."""


class Authorization:
    """The header that goes with each request to one registry; empty until it is asked for."""

    def __init__(self, credentials: Credentials | None, scopes: Sequence[str], fetch: Fetch) -> None:
        self._credentials = credentials
        self._scopes = list(scopes)
        self._fetch = fetch
        self._one_at_a_time = trio.Lock()
        self.header = ""

    @property
    def has_credentials(self) -> bool:
        """Whether somebody has logged in."""
        return self._credentials is not None

    async def answer(self, asked: Sequence[Challenge], endpoint: Endpoint, sent: str) -> bool:
        """Prepare `header` for what is asked of a request that came with `sent`; False where nothing else would do."""
        async with self._one_at_a_time:
            if self.header != sent:  # another request has been asked the same meanwhile
                return True
            for challenge in asked:
                if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
                    self.header = "Bearer " + await self._token(challenge.parameters, endpoint)
                    break
                if challenge.scheme == "basic" and self._credentials is not None and self._credentials.password:
                    self.header = self._credentials.basic
                    break
            return self.header != sent

    async def _token(self, parameters: Mapping[str, str], endpoint: Endpoint) -> str:
        """A token for all that this session wants, which spares a round trip for each."""
        realm = parameters["realm"]
        service = parameters.get("service", "")
        scopes = list(dict.fromkeys([*self._scopes, *parameters.get("scope", "").split()]))
        if self._credentials is not None and self._credentials.refresh:
            form = {"grant_type": "refresh_token", "service": service, "client_id": _CLIENT}
            form |= {"scope": " ".join(scopes), "refresh_token": self._credentials.refresh}
            response = await self._fetch("POST", realm, {}, form)
        else:
            query = [("service", service)] * bool(service) + [("scope", scope) for scope in scopes]
            headers = {}
            if self._credentials is not None:
                query.append(("account", self._credentials.user))
                headers["Authorization"] = self._credentials.basic
            url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
            response = await self._fetch("GET", url, headers, None)
        if response.status_code in (401, 403):
            hint = (
                f"log in again: ufs login {endpoint.host}"
                if self._credentials
                else f"log in: ufs login {endpoint.host}"
            )
            raise UfsError(f"{endpoint.host} gives no access to {endpoint.repository or 'it'}; {hint}")
        if response.status_code != 200:
            raise UfsError(f"the token server of {endpoint.host} answers {response.status_code}")
        try:
            document = json.loads(response.content)
            token = document.get("token") or document.get("access_token")
        except (ValueError, AttributeError):
            token = None
        if not isinstance(token, str) or not token.isprintable():
            raise UfsError(f"the token server of {endpoint.host} answers without a token")
        return token
