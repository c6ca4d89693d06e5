"""The documents of images as types: descriptors, indexes, manifests and configurations.

Shapes are those of the OCI image specification 1.1 (descriptor.md, image-index.md, manifest.md, config.md)
and of Docker's "Image Manifest Version 2, Schema 2", which differ in media types only. What is read comes from
strangers: every field is checked for its type, and anything else is `BadDocument`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from launcher.image.typed import BadDocument, Fields

MAX_NESTING = 4
"""Indexes that may lie in one another."""

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"

INDEX_TYPES = frozenset({INDEX, "application/vnd.docker.distribution.manifest.list.v2+json"})
MANIFEST_TYPES = frozenset({MANIFEST, "application/vnd.docker.distribution.manifest.v2+json"})
CONFIG_TYPES = frozenset({CONFIG, "application/vnd.docker.container.image.v1+json"})

_UNSAID = frozenset({"", "application/json", "application/octet-stream", "text/plain"})
"""What old registries and simple writers state where they state anything: the content says what it is."""

_TAR = re.compile(r"[./+-](?:tar|x-tar|x-gtar)(?:[.+-]|$)")
"""In the media type of a layer that is a tar, whatever its compression: Docker's, OCI's and those before them."""

_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1"


class NotAnImage(BadDocument):
    """A document of something else, as of a chart or a signature. Where it stands beside images it is passed over."""


class Platform(NamedTuple):
    """What an image runs on, in Go's words: ``linux``, ``amd64``, ``v8``."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in self if part)


class Descriptor(NamedTuple):
    """A reference to a blob by content. `digest` is checked: ``sha256:`` and 64 hexadecimal digits."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = {}
    artifact: bool = False

    @property
    def hex(self) -> str:
        """The digest without its algorithm: the blob's file name."""
        return self.digest[7:]

    def document(self) -> dict[str, Any]:
        """As JSON."""
        found: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.platform:
            found["platform"] = {"architecture": self.platform.architecture, "os": self.platform.os}
            if self.platform.variant:
                found["platform"]["variant"] = self.platform.variant
        if self.annotations:
            found["annotations"] = dict(self.annotations)
        return found


class Manifest(NamedTuple):
    """One image for one platform; `layers` has the lowest first."""

    config: Descriptor
    layers: list[Descriptor]

    def document(self) -> dict[str, Any]:
        """As JSON, an OCI manifest."""
        return {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.config.document(),
            "layers": [layer.document() for layer in self.layers],
        }


class ImageConfig(NamedTuple):
    """What an image says of running it. Absent fields are empty, an absent `cmd` too.

    `diff_ids` are hexadecimal, the lowest layer first; `env` has ``NAME=VALUE`` strings; `created` is RFC 3339;
    `healthcheck` is Docker's, as it is there: `launcher.container.health` reads it.
    """

    platform: Platform
    diff_ids: list[str]
    entrypoint: list[str] = []
    cmd: list[str] = []
    env: list[str] = []
    user: str = ""
    working_dir: str = ""
    stop_signal: str = ""
    exposed_ports: list[str] = []
    volumes: list[str] = []
    labels: Mapping[str, str] = {}
    created: str = ""
    healthcheck: Mapping[str, Any] = {}
    shell: list[str] = []

    @property
    def architecture(self) -> str:
        """The processor in Go's words, as ``amd64``."""
        return self.platform.architecture

    @property
    def os(self) -> str:
        """The operating system in Go's words, as ``linux``."""
        return self.platform.os


class Step(NamedTuple):
    """One entry of an image's history (config.md, "history"); `empty_layer`: it made no layer."""

    created: str
    created_by: str
    comment: str
    empty_layer: bool


def check_digest(digest: str, what: str) -> str:
    """The 64 hexadecimal digits of a sha256 digest; nothing else may ever become part of a path."""
    algorithm, _, value = digest.partition(":")
    if algorithm == "sha256" and len(value) == 64 and not value.strip("0123456789abcdef"):
        return value
    if algorithm in ("sha384", "sha512", "blake3") and value:
        raise BadDocument(f"{what}: {algorithm} digests are not supported; copy the image with sha256 digests")
    raise BadDocument(f"{what}: malformed digest {digest[:90]!r}; the image is malformed")


def descriptor(value: Any, what: str) -> Descriptor:
    """A descriptor."""
    fields = Fields(value, what)
    digest = fields.text("digest")
    check_digest(digest, what)
    platform = fields.mapping("platform")
    annotations = {name: item for name, item in fields.mapping("annotations").items() if isinstance(item, str)}
    return Descriptor(
        fields.text("mediaType", ""),
        digest,
        fields.number("size"),
        _platform(Fields(platform, what)) if platform else None,
        annotations,
        # Attestations and signatures: they are listed beside images and are none.
        bool(fields.text("artifactType", "")) or "vnd.docker.reference.type" in annotations,
    )


def is_index(stated: str, value: Any, what: str) -> bool:
    """Whether a document is an index; otherwise it is a manifest. NotAnImage for anything else.

    `stated` is the media type of its descriptor. Where that says nothing the document's own counts, or its fields.
    """
    fields = Fields(value, what)
    own = stated if stated not in _UNSAID else fields.text("mediaType", "")
    check_media_type(own, what)
    manifests, layers = fields.value("manifests"), (fields.value("config") or fields.value("layers"))
    if manifests and layers:  # two tools could take it for two different images (CVE-2021-41190)
        raise BadDocument(f"{what} is a manifest and an index at once; the image is malformed")
    if own in INDEX_TYPES or own in MANIFEST_TYPES:
        return own in INDEX_TYPES
    if manifests is not None:
        return True
    if fields.value("config") is None and fields.value("layers") is None:
        if fields.value("fsLayers") is not None:
            check_media_type(_SCHEMA_1, what)
        raise NotAnImage(f"{what} is neither a manifest nor an index; is it an image?")
    return False


def manifest_type(stated: str, value: Any) -> str:
    """The media type of a manifest: what its descriptor states, else the document itself, else OCI's."""
    own = Fields(value, "manifest").text("mediaType", "")
    return next((found for found in (stated, own) if found in MANIFEST_TYPES), MANIFEST)


def is_document(stated: str) -> bool:
    """Whether what has this media type may name other blobs: an index, a manifest, or what does not say."""
    return stated in INDEX_TYPES | MANIFEST_TYPES | _UNSAID or stated.endswith("manifest.v1+json")


def check_media_type(stated: str, what: str) -> None:
    """NotAnImage for a media type that is neither a manifest's nor an index's nor silent."""
    if stated.startswith(_SCHEMA_1):
        raise BadDocument(f"{what} is of Docker's schema 1, which ended in 2017; save the image with a current tool")
    if stated not in INDEX_TYPES | MANIFEST_TYPES | _UNSAID:
        raise NotAnImage(f"{what}: unknown media type {stated[:90]!r}; is it an image?")


def entries(value: Any, what: str) -> list[Any]:
    """The entries of an image index or manifest list as they are written."""
    fields = Fields(value, what)
    _check_schema(fields)
    return fields.items("manifests")


def index(value: Any, what: str) -> list[Descriptor]:
    """The manifests that an image index or manifest list names."""
    return [descriptor(item, f"{what}, manifest {number}") for number, item in enumerate(entries(value, what))]


def manifest(value: Any, what: str) -> Manifest:
    """A manifest of an image; media types of its config and layers are checked."""
    fields = Fields(value, what)
    _check_schema(fields)
    if not fields.mapping("config"):
        raise BadDocument(f"{what} has no 'config'; is it the manifest of an image?")
    config = descriptor(fields.mapping("config"), f"{what}, config")
    if config.media_type not in CONFIG_TYPES | _UNSAID:
        raise NotAnImage(f"{what}: config of unknown media type {config.media_type[:90]!r}; it is not an image")
    layers = [descriptor(item, f"{what}, layer {number}") for number, item in enumerate(fields.items("layers"))]
    for number, layer in enumerate(layers):
        if layer.media_type.endswith("+encrypted"):
            raise BadDocument(f"{what}, layer {number} is encrypted; skopeo copy --decryption-key decrypts it")
        # The bytes say how a layer is compressed; what is no tar at all must not pass for one.
        if layer.media_type not in _UNSAID and not _TAR.search(layer.media_type):
            raise BadDocument(f"{what}, layer {number}: unknown media type {layer.media_type[:90]!r}; known are tars")
    return Manifest(config, layers)


def config(value: Any, what: str) -> ImageConfig:
    """The configuration of an image."""
    fields = Fields(value, what)
    inner = fields.fields("config")
    rootfs = fields.fields("rootfs")
    found = ImageConfig(
        _platform(fields),
        [check_digest(item, f"{what}, diff id {number}") for number, item in enumerate(rootfs.texts("diff_ids"))],
        inner.words("Entrypoint"),
        inner.words("Cmd"),
        inner.texts("Env"),
        inner.text("User", ""),
        inner.text("WorkingDir", ""),
        inner.text("StopSignal", ""),
        inner.keys("ExposedPorts"),
        inner.keys("Volumes"),
        inner.strings("Labels"),
        fields.text("created", ""),
        inner.mapping("Healthcheck"),
        inner.texts("Shell"),
    )
    said = [*found.entrypoint, *found.cmd, *found.env, *found.volumes, found.user, found.working_dir]
    if any("\0" in text for text in said):  # no system call could take it
        raise BadDocument(f"{what} has a NUL character in a command, variable, user or path; the image is malformed")
    return found


def history(value: Any, what: str) -> list[Step]:
    """The history in a configuration, the oldest step first; none where it has none."""
    steps = []
    for number, item in enumerate(Fields(value, what).items("history")):
        fields = Fields(item, f"{what}, history {number}")
        created, created_by, comment = (fields.text(key, "") for key in ("created", "created_by", "comment"))
        steps.append(Step(created, created_by, comment, bool(fields.value("empty_layer"))))
    return steps


def _platform(fields: Fields) -> Platform:
    return Platform(fields.text("os", ""), fields.text("architecture", ""), fields.text("variant", ""))


def _check_schema(fields: Fields) -> None:
    if fields.value("schemaVersion") not in (None, 2):  # many writers leave it out, and nobody minds
        raise fields.bad("schemaVersion", "2: save the image again with a current tool")
