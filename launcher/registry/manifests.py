"""From a name to the documents of one image: the manifest for a platform, its config, all verified."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from launcher.errors import UfsError
from launcher.image import oci, platforms, typed
from launcher.image.found import Found, LayerSource, check
from launcher.image.oci import Descriptor, ImageConfig, Manifest, Platform
from launcher.image.reference import Reference
from launcher.registry.session import Refused, Session

_ACCEPTED = (*sorted(oci.INDEX_TYPES), *sorted(oci.MANIFEST_TYPES))
_OLD = "application/vnd.docker.distribution.manifest.v1"


class Described(NamedTuple):
    """An image as a registry describes it. `digest` is what the name led to: an index's or the manifest's."""

    digest: str
    descriptor: Descriptor
    manifest: Manifest
    manifest_bytes: bytes
    config: ImageConfig
    config_bytes: bytes

    def found(self, name: str, layers: list[LayerSource]) -> Found:
        """For the store, with where its layers are."""
        plain = self.descriptor._replace(annotations={}, platform=None)
        return Found([name], (plain, self.manifest_bytes), self.config, self.config_bytes, layers)


async def digest_of(session: Session, wanted: Reference) -> str | None:
    """What a name leads to, without reading it; None where the registry does not say."""
    headers = {"Accept": ", ".join(_ACCEPTED)}
    path = session.path(f"manifests/{wanted.digest or wanted.tag}")
    async with session.ask("HEAD", path, headers=headers, good=(200, 404)) as answer:
        digest: str | None = answer.headers.get("Docker-Content-Digest")
    return digest


async def describe(session: Session, wanted: Reference, platform: Platform | None) -> Described:
    """Read the documents. UfsError where one is not what its digest says, or nothing fits the platform."""
    what = wanted.familiar
    data, media_type = await _manifest(session, wanted.digest or wanted.tag or "", what)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if wanted.digest and digest != wanted.digest:
        raise UfsError(f"{what} does not match its digest: it has {digest}; the registry is damaged or lies")
    one = Descriptor(media_type, digest, len(data))
    for _ in range(oci.MAX_NESTING + 1):
        document = typed.load(data, f"{what}: manifest")
        if not oci.is_index(one.media_type, document, f"{what}: manifest"):
            one = one._replace(media_type=oci.manifest_type(one.media_type, document))
            return await _described(session, what, digest, one, data, platform)
        one = platforms.choose(oci.index(document, f"{what}: index"), platform, what)
        data, media_type = await _manifest(session, one.digest, what)
        one = one._replace(media_type=one.media_type or media_type)
        _verify(data, one, f"{what}: manifest {one.hex[:12]}")
    raise UfsError(f"{what}: indexes are nested more than {oci.MAX_NESTING} deep; the image is malformed")


async def _described(
    session: Session, what: str, digest: str, one: Descriptor, data: bytes, platform: Platform | None
) -> Described:
    manifest = oci.manifest(typed.load(data, f"{what}: manifest"), f"{what}: manifest")
    config_what = f"{what}: config {manifest.config.hex[:12]}"
    if manifest.config.size > typed.MAX_DOCUMENT:
        raise UfsError(f"{config_what} has {manifest.config.size} bytes, the limit is {typed.MAX_DOCUMENT}")
    config_bytes, _ = await session.document(session.path(f"blobs/{manifest.config.digest}"))
    _verify(config_bytes, manifest.config, config_what)
    config = oci.config(typed.load(config_bytes, config_what), config_what)
    check(config, len(manifest.layers), platform, config_what)
    return Described(digest, one, manifest, data, config, config_bytes)


async def _manifest(session: Session, name: str, what: str) -> tuple[bytes, str]:
    """(bytes, media type) of a manifest or index."""
    try:
        data, headers = await session.document(session.path(f"manifests/{name}"), _ACCEPTED)
    except Refused as error:
        if error.code != 404:
            raise
        raise Refused(f"{session.endpoint.host} has no image {what}; is its name right, and its tag?", 404) from None
    media_type = headers.get("Content-Type", "").partition(";")[0].strip()
    stated = typed.Fields(typed.load(data, what), what).text("mediaType", "")
    if media_type.startswith(_OLD) or stated.startswith(_OLD):
        raise UfsError(
            f"{what} is an image of Docker's schema 1, which ended in 2017; push it again with a current tool"
        )
    known = oci.INDEX_TYPES | oci.MANIFEST_TYPES
    return data, stated if stated in known else media_type


def _verify(data: bytes, one: Descriptor, what: str) -> None:
    if len(data) != one.size:
        raise UfsError(f"{what} has {len(data)} bytes instead of {one.size}; the registry is damaged or lies")
    if hashlib.sha256(data).hexdigest() != one.hex:
        raise UfsError(f"{what} does not match its digest; the registry is damaged or lies")
