"""`login`: whether a registry takes a user name and a password, before they are kept."""

from __future__ import annotations

from launcher.errors import UfsError
from launcher.registry.credentials import Credentials
from launcher.registry.endpoints import Endpoint, api_host
from launcher.registry.pull import run
from launcher.registry.session import Refused, Session


def check(registry: str, known: Credentials, insecure: bool) -> None:
    """Ask the registry's base (distribution specification, "Determining Support"). UfsError where it refuses."""

    async def job() -> None:
        async with Session(Endpoint(api_host(registry), "", insecure), known) as session:
            try:
                await session.document("/v2/")
            except Refused as error:
                if error.code != 401:
                    raise
                raise UfsError(f"{registry} does not accept this user name and password") from None

    run(job)
