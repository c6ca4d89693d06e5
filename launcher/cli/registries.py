"""`ufs pull`, `ufs push`, `ufs search`, `ufs login`, `ufs logout`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from launcher.cli import listing
from launcher.cli.images import ImageName
from launcher.cli.transfers import Transfers
from launcher.errors import UfsError
from launcher.image import platforms, reference
from launcher.image.reference import DEFAULT_REGISTRY
from launcher.image.store import Store

if TYPE_CHECKING:
    from launcher.registry.search import Hit

_tls = click.option(
    "--tls-verify",
    type=bool,
    default=None,
    metavar="true|false",
    help="false: certificates need not be known, and plain HTTP will do.",
)


@click.command(
    epilog="""\b
Examples:
  ufs pull alpine
  ufs pull --platform linux/arm64 debian:12
  ufs pull -q registry.example/tool@sha256:...
  ufs pull --tls-verify=false localhost:5000/tool
"""
)
@click.argument("name", metavar="NAME[:TAG|@DIGEST]")
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Of several platforms take this one.")
@click.option("-a", "--all-tags", is_flag=True, help="Every tag of the repository.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress, print the image's id alone.")
@_tls
def pull(name: str, platform: str | None, all_tags: bool, quiet: bool, tls_verify: bool | None) -> None:
    """Bring an image from a registry into the store.

    Layers come in parallel and are verified as they come. What an ended pull has brought stays for the next one.
    """
    from launcher.image.load import Silent
    from launcher.registry import pull as pulling
    from launcher.registry.endpoints import Registries

    wanted_platform = platforms.parse(platform) if platform else None
    registries = Registries.read()
    wanted = registries.named(name)
    insecure = _insecure(tls_verify)
    if all_tags and (":" in name.rpartition("/")[2] or wanted.digest):
        raise click.UsageError("--all-tags and a tag or digest exclude each other")
    each = pulling.all_tags(wanted, registries, insecure) if all_tags else [wanted]
    for one in each:
        with Transfers("Downloading", quiet) as transfers:
            done = pulling.pull(one, Store(), registries, transfers, Silent(), wanted_platform, insecure)
        if quiet:
            print(f"sha256:{done.image}")
            continue
        print(f"Digest: {done.digest}")
        status = "Downloaded newer image for" if done.fresh else "Image is up to date for"
        print(f"Status: {status} {one.familiar}")
        print(one)


@click.command(
    epilog="""\b
Examples:
  ufs push registry.example/me/tool:1
  ufs push tool:1 registry.example/me/tool:2
"""
)
@click.argument("image", type=ImageName())
@click.argument("destination", required=False)
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@_tls
def push(image: str, destination: str | None, quiet: bool, tls_verify: bool | None) -> None:
    """Bring an image of the store to a registry, as it is: its digests stay the same.

    It goes to the registry that its name says, or to DESTINATION. Layers that the registry has are not sent.
    """
    from launcher.image.resolve import find, unknown
    from launcher.registry import push as pushing
    from launcher.registry.endpoints import Registries

    store = Store()
    records = store.records()
    record = find(image, records)
    if record is None:
        raise unknown(image, records)
    to = reference.parse(destination.removeprefix("docker://") if destination else record.name or image)
    with Transfers("Pushing", quiet) as transfers:
        digest = pushing.push(record, to, store, Registries.read(), transfers, _insecure(tls_verify))
    if not quiet:
        print(f"{to.tag or to.digest}: digest: {digest} size: {record.manifest.size}")


@click.command(
    epilog="""\b
Examples:
  ufs search nginx
  ufs search --limit 5 --filter is-official=true python
  ufs search registry.example/tool
"""
)
@click.argument("term", metavar="[REGISTRY/]TERM")
@click.option("--limit", type=click.IntRange(1, 100), default=25, show_default=True, help="At most so many.")
@click.option("-f", "--filter", "filters", metavar="K=V", multiple=True, help="is-official=true|false, stars=N.")
@click.option("--no-trunc", is_flag=True, help="Whole descriptions.")
@click.option("--format", "format_", metavar="TEMPLATE", help="table, json, or a Go template; with table before it.")
@_tls
def search(
    term: str, limit: int, filters: tuple[str, ...], no_trunc: bool, format_: str | None, tls_verify: bool | None
) -> None:
    """Search a registry for images: the hub, or the one that is named before the first slash.

    A registry without a search is asked for its catalogue, which knows names only.
    """
    from launcher.registry import search as searching
    from launcher.registry.endpoints import Registries

    wanted = _filters(filters)
    registry, slash, rest = term.partition("/")
    if not slash or not ("." in registry or ":" in registry or registry == "localhost"):
        registry, rest = DEFAULT_REGISTRY, term
    insecure = _insecure(tls_verify)
    insecure = Registries.read().insecure(registry) if insecure is None else insecure
    hits = [hit for hit in searching.search(registry, rest, limit, insecure) if _fits(hit, wanted)]
    if format_ == "json":
        for hit in hits:
            print(json.dumps(_document(hit)))
        return
    rows = [_fields(hit, no_trunc) for hit in hits]
    columns = ("Name", "Description", "StarCount", "IsOfficial")
    listing.show_or_table(format_, columns, _HIT, rows)


_HIT = {
    "Name": "NAME",
    "Description": "DESCRIPTION",
    "StarCount": "STARS",
    "IsOfficial": "OFFICIAL",
    "IsAutomated": "AUTOMATED",
}


def _fields(hit: Hit, whole: bool) -> dict[str, str]:
    text = " ".join(hit.description.split())
    return {
        "Name": hit.name,
        "Description": text if whole or len(text) <= 45 else text[:44] + "…",
        "StarCount": str(hit.stars),
        "IsOfficial": "[OK]" if hit.official else "",
        "IsAutomated": "[OK]" if hit.automated else "",
    }


@click.command(
    epilog="""\b
Examples:
  ufs login registry.example
  echo "$PASSWORD" | ufs login -u me --password-stdin registry.example
"""
)
@click.argument("registry", default=DEFAULT_REGISTRY)
@click.option("-u", "--username", metavar="USER", help="Asked for where it is not given.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@_tls
def login(registry: str, username: str | None, password_stdin: bool, tls_verify: bool | None) -> None:
    """Keep a user name and a password for a registry, once it has accepted them.

    They are kept where podman and Docker keep them, or by the credential helper that is configured there.
    """
    from launcher.registry import credentials
    from launcher.registry import login as checking
    from launcher.registry.endpoints import Registries

    registry = _registry(registry)
    if not username and (password_stdin or not sys.stdin.isatty()):
        raise UfsError("give the user name: --username USER, and the password by --password-stdin")
    user = username or click.prompt("Username")
    if password_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True)
    else:
        raise UfsError("standard input is no terminal to ask for a password: pipe it in and say --password-stdin")
    if ":" in user:
        raise UfsError("a user name has no ':' (RFC 7617)")
    insecure = _insecure(tls_verify)
    known = credentials.Credentials(user, password)
    checking.check(registry, known, Registries.read().insecure(registry) if insecure is None else insecure)
    where = credentials.store(registry, known)
    print(f"Login Succeeded, kept in {where}")


@click.command(
    epilog="""\b
Example:
  ufs logout registry.example
"""
)
@click.argument("registry", default=DEFAULT_REGISTRY)
@click.option("-a", "--all", "everything", is_flag=True, help="Of every registry.")
def logout(registry: str, everything: bool) -> None:
    """Forget the user name and password of a registry."""
    from launcher.registry import credentials

    for one in credentials.logged_in() if everything else [_registry(registry)]:
        if not credentials.erase(one):
            raise UfsError(f"not logged in to {one}")
        print(f"Removed login credentials for {one}")


def _registry(text: str) -> str:
    """The name that credentials are filed under."""
    host = text.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return DEFAULT_REGISTRY if host in ("index.docker.io", "registry-1.docker.io") else host


def _insecure(tls_verify: bool | None) -> bool | None:
    return None if tls_verify is None else not tls_verify


def _filters(texts: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        known = {"is-official": value in ("true", "false"), "is-automated": value in ("true", "false")}
        known["stars"] = value.isascii() and value.isdigit()
        if not equals or not known.get(key):
            raise click.UsageError(f"--filter {text}: known are is-official=true|false, is-automated=..., stars=N")
        found[key] = value
    return found


def _fits(hit: Hit, wanted: dict[str, str]) -> bool:
    flags = {"is-official": hit.official, "is-automated": hit.automated}
    if any(key in wanted and (wanted[key] == "true") != flag for key, flag in flags.items()):
        return False
    return hit.stars >= int(wanted.get("stars", "0"))


def _document(hit: Hit) -> dict[str, object]:
    return {
        "Name": hit.name,
        "Description": hit.description,
        "StarCount": hit.stars,
        "IsOfficial": hit.official,
    }
