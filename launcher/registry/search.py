"""`search`: by the registry's own search where it has one (Docker's v1 interface), else by its catalogue."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlencode

from launcher.errors import UfsError
from launcher.image import typed
from launcher.image.reference import DEFAULT_REGISTRY
from launcher.registry import credentials
from launcher.registry.endpoints import Endpoint, api_host
from launcher.registry.pull import next_page, run
from launcher.registry.session import Refused, Session

_HUB_SEARCH = "index.docker.io"
_MOST = 10_000
"""Names of a catalogue that are looked at."""


class Hit(NamedTuple):
    """One repository; a catalogue knows nothing but its name."""

    name: str
    description: str = ""
    stars: int = 0
    official: bool = False
    automated: bool = False


def search(registry: str, term: str, limit: int, insecure: bool) -> list[Hit]:
    """What a registry has for a term, the best first."""

    async def job() -> list[Hit]:
        host = _HUB_SEARCH if registry == DEFAULT_REGISTRY else registry
        try:
            async with _session(registry, host, insecure, []) as session:
                return await _by_search(session, term, limit)
        except Refused as error:
            if registry == DEFAULT_REGISTRY or error.code not in (401, 403, 404, 405):
                raise
        async with _session(registry, api_host(registry), insecure, ["registry:catalog:*"]) as session:
            return await _by_catalogue(session, registry, term, limit)

    return run(job)


def _session(registry: str, host: str, insecure: bool, scopes: list[str]) -> Session:
    return Session(Endpoint(host, "", insecure), credentials.find(registry), scopes)


async def _by_search(session: Session, term: str, limit: int) -> list[Hit]:
    data, _ = await session.document(f"/v1/search?{urlencode({'q': term, 'n': limit})}")
    what = f"{session.endpoint.host}: search"
    hits = []
    for item in typed.Fields(typed.load(data, what), what).items("results"):
        fields = typed.Fields(item, what)
        flags = [bool(fields.value(key)) for key in ("is_official", "is_automated")]
        stars = fields.value("star_count")
        hits.append(
            Hit(fields.text("name", ""), fields.text("description", ""), stars if isinstance(stars, int) else 0, *flags)
        )
    return hits[:limit]


async def _by_catalogue(session: Session, registry: str, term: str, limit: int) -> list[Hit]:
    """Names that contain the term (distribution, "Listing Repositories"), those that begin with it first."""
    found: list[str] = []
    seen = 0
    path: str | None = "/v2/_catalog?n=1000"
    what = f"{registry}: catalogue"
    while path and seen < _MOST:
        try:
            data, headers = await session.document(path)
        except Refused as error:
            if error.code in (401, 403, 404, 405):
                raise UfsError(
                    f"{registry} has neither a search nor a catalogue that it shows; ask it in a browser"
                ) from None
            raise
        names = typed.Fields(typed.load(data, what), what).texts("repositories")
        seen += len(names)
        found += [name for name in names if term in name]
        path = next_page(headers.get("Link", "")) if names else None
    found.sort(key=lambda name: (not name.startswith(term), name))
    return [Hit(f"{registry}/{name}") for name in found[:limit]]
