"""Real images, built by tools that are not ours: umoci, skopeo, buildah, GNU tar, debootstrap.

They are cached in `.cache/images` of the checkout (or below the user's cache directory where that cannot be
written), under the checksum of the recipes; a changed recipe is another key.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.images import base, buildah, debian, sparse, tricky
from tests.support.area import Area
from tests.support.installed import CHECKOUT

RECIPES: dict[str, Callable[[Path], None]] = {
    "busybox": base.build,
    "tricky": tricky.build,
    "buildah": buildah.build,
    "sparse": sparse.build,
    "debian": debian.build,
}
"""What builds each image into an empty directory; its docstring says which forms of it are there."""


class Images:
    """`path("tricky", "zstd.oci.tar")` is a form of an image that every user may read."""

    def __init__(self, area: Area) -> None:
        self._area = area

    def path(self, name: str, form: str) -> Path:
        return self._area.share(self.built(name) / form)

    def built(self, name: str) -> Path:
        """The directory of an image in the cache, only for the user who runs the tests."""
        folder = _cache() / f"{name}-{_key(name)}"
        if not folder.exists():
            temporary = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
            try:
                RECIPES[name](temporary)
                temporary.rename(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return folder


def _cache() -> Path:
    preferred = CHECKOUT / ".cache" / "images"
    if not os.access(CHECKOUT, os.W_OK):
        preferred = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ufs-tests" / "images"
    preferred.mkdir(parents=True, exist_ok=True)
    return preferred


def _key(name: str) -> str:
    """Of the recipe, of what all recipes share, and of whether devices and owners could be made."""
    here = Path(__file__).parent
    recipe = Path(RECIPES[name].__code__.co_filename)
    text = b"".join(path.read_bytes() for path in sorted({recipe, here / "tools.py", here / "base.py"}))
    return hashlib.sha256(text + bytes([os.geteuid() == 0])).hexdigest()[:16]
