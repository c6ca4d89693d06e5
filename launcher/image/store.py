"""Where images are kept, and reading it. Writing is `launcher.image.workspace`.

The layout is drawn in docs/store.md. Importing and reading cost little: this is on the way of `ufs-run`.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from launcher.errors import UfsError
from launcher.image import oci, reference

VERSION = "1"
IMAGE_ANNOTATION = "ufs.image"
"""In index.json: the image id (hexadecimal config digest), so that a look-up reads no manifest."""

SOURCE_ANNOTATION = "ufs.source"
"""In index.json: the `Record.source` that an image was loaded from."""


class Record(NamedTuple):
    """One entry of index.json. An image with several names has several, one without a name has one."""

    manifest: oci.Descriptor
    name: str
    """Normalised reference, or empty."""
    image: str
    """Image id: hexadecimal digits of the config's digest."""
    source: str = ""
    """Device, inode, size and mtime of the archive given in place of a name, or empty."""

    def descriptor(self) -> oci.Descriptor:
        """As an entry of index.json."""
        annotations = {
            oci.REF_NAME: self.name,
            IMAGE_ANNOTATION: self.image,
            SOURCE_ANNOTATION: self.source,
        }
        return self.manifest._replace(annotations={key: value for key, value in annotations.items() if value})


class Store:
    """Paths of a store and what is in it. Nothing is created by looking."""

    def __init__(self, root: str | None = None) -> None:
        self.root = root or default_root()

    def path(self, *parts: str) -> str:
        """A path beneath the store's root."""
        return os.path.join(self.root, *parts)

    def blob(self, digits: str) -> str:
        """The file of a blob."""
        return self.path("blobs", "sha256", digits)

    def layer(self, diff_id: str) -> str:
        """The uncompressed tar of a layer."""
        return self.path("layers", diff_id + ".tar")

    def index(self, image: str) -> str:
        """The compiled index of an image."""
        return self.path("images", image + ".index")

    def records(self) -> list[Record]:
        """The entries of index.json; none where there is no store yet."""
        data = self._read("index.json", None)
        if data is None:
            return []
        self._check_version()
        what = self.path("index.json")
        return [self._record(item) for item in oci.index(oci.load(data, what), what) if not item.artifact]

    def config(self, image: str) -> oci.ImageConfig:
        """The configuration of an image by its id."""
        return oci.config(self._document(image), f"config of image {image[:12]}")

    def history(self, image: str) -> list[oci.Step]:
        """How an image was made, the oldest step first."""
        return oci.history(self._document(image), f"config of image {image[:12]}")

    def manifest(self, digits: str) -> oci.Manifest:
        """A manifest by the digits of its digest."""
        return self.manifest_and_bytes(digits)[0]

    def manifest_and_bytes(self, digits: str) -> tuple[oci.Manifest, bytes]:
        """A manifest, and as it is written."""
        data = self._blob_bytes(digits)
        return oci.manifest(oci.load(data, self.blob(digits)), f"manifest {digits[:12]}"), data

    def _document(self, digits: str) -> object:
        return oci.load(self._blob_bytes(digits), self.blob(digits))

    def _blob_bytes(self, digits: str) -> bytes:
        path = self.blob(digits)
        data = self._read(path, None)
        if data is None:
            raise UfsError(f"{path} is missing from the store; load the image again")
        return data

    def _read(self, name: str, default: bytes | None) -> bytes | None:
        try:
            fd = os.open(self.path(name), os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return default
        with open(fd, "rb", buffering=0) as file:
            return file.read()

    def _record(self, entry: oci.Descriptor) -> Record:
        image = entry.annotations.get(IMAGE_ANNOTATION, "")
        if image:
            oci.check_digest("sha256:" + image, self.path("index.json"))
        else:  # put there by another tool
            image = self.manifest(entry.hex).config.hex
        name = entry.annotations.get(oci.REF_NAME, "")
        if not entry.annotations.get(IMAGE_ANNOTATION):
            name = reference.normalised(name)  # what other tools put there may be no name at all
        return Record(entry, name, image, entry.annotations.get(SOURCE_ANNOTATION, ""))

    def _check_version(self) -> None:
        found = (self._read("version", VERSION.encode()) or b"").decode("ascii", "replace").strip()
        if found != VERSION:
            raise UfsError(
                f"the store {self.root} has version {found!r}, this program knows {VERSION}; "
                "use the program that made it, or set UFS_ROOT to another directory"
            )


def default_root() -> str:
    """``$UFS_ROOT``, else ``$XDG_DATA_HOME/ufs``, else ``~/.local/share/ufs``."""
    root = os.environ.get("UFS_ROOT")
    if root:
        return os.path.abspath(root)
    data = os.environ.get("XDG_DATA_HOME", "")
    # A relative path there is invalid and to be ignored (XDG Base Directory Specification).
    if not data.startswith("/"):
        home = os.path.expanduser("~")
        if home == "~":
            raise UfsError("no home directory is known for the store; set UFS_ROOT to a directory")
        data = os.path.join(home, ".local", "share")
    return os.path.join(data, "ufs")
