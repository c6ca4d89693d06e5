"""Which of several images is for this machine: platforms in Go's words (OCI image-index.md, "platform")."""

from __future__ import annotations

import os
from collections.abc import Sequence

from launcher.errors import UfsError
from launcher.image.oci import Descriptor, Platform

_MACHINES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "armv8l": ("arm", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "loongarch64": ("loong64", ""),
}
_DEFAULT_VARIANT = {"arm64": "v8", "arm": "v7", "amd64": "v1"}


def this_machine() -> Platform:
    """The platform that this process runs on."""
    machine = os.uname().machine
    architecture, variant = _MACHINES.get(machine, (machine, ""))
    return Platform("linux", architecture, variant)


def parse(text: str) -> Platform:
    """``OS/ARCH[/VARIANT]`` as in `--platform`; ``ARCH`` alone means linux."""
    parts = text.split("/")
    if len(parts) == 1:
        parts.insert(0, "linux")
    if len(parts) > 3 or not all(parts):
        raise UfsError(f"{text!r} is not a platform: write OS/ARCH or OS/ARCH/VARIANT, as linux/arm64", 2)
    return Platform(*parts)


def matches(wanted: Platform, offered: Platform) -> bool:
    """Whether `offered` runs where `wanted` is asked for: the same, or an older variant of the same.

    What an image leaves out it says of no platform, so it fits all.
    """
    same = offered.os in ("", wanted.os) and offered.architecture in ("", wanted.architecture)
    return same and _level(offered) <= _level(wanted)


def choose(found: Sequence[Descriptor], wanted: Platform | None, what: str) -> Descriptor:
    """The best manifest for a platform (this machine's where None): the newest variant that runs there."""
    images = [item for item in found if not item.artifact and not _unknown(item.platform)]
    asked = wanted or this_machine()
    fitting = [item for item in images if item.platform is None or matches(asked, item.platform)]
    if fitting:
        return max(fitting, key=lambda item: (item.platform is not None, _level(item.platform or asked)))
    has = ", ".join(sorted({str(item.platform) for item in images})) or "no image at all"
    raise UfsError(f"{what} has no image for {asked}: it has {has}; choose one with --platform")


def _unknown(platform: Platform | None) -> bool:
    return platform is not None and platform.architecture == "unknown"


def _level(platform: Platform) -> int:
    """The number in a variant as ``v7``; what an absent one means is the architecture's base."""
    variant = platform.variant or _DEFAULT_VARIANT.get(platform.architecture, "")
    digits = variant.removeprefix("v")
    return int(digits) if digits.isdigit() and len(digits) < 4 else 0
