"""A whole Debian or Ubuntu root, of the machine's own release, made with debootstrap."""

from __future__ import annotations

import re
from pathlib import Path

from tests.images import tools

FALLBACK = {"debian": "http://deb.debian.org/debian", "ubuntu": "http://archive.ubuntu.com/ubuntu"}


def release() -> dict[str, str]:
    """The fields of /etc/os-release."""
    lines = Path("/etc/os-release").read_text().splitlines()
    return {key: value.strip('"') for key, _, value in (line.partition("=") for line in lines)}


def mirror(codename: str) -> str:
    """Where apt of this machine gets its packages from."""
    for path in [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]:
        if path.suffix not in (".list", ".sources") or not path.exists():
            continue
        text = path.read_text()
        deb822 = re.search(rf"^URIs:\s*(http\S+)[^\0]*?^Suites:\s*{codename}\b", text, re.MULTILINE)
        classic = re.search(rf"^deb\s+(?:\[[^]]*]\s+)?(http\S+)\s+{codename}\s", text, re.MULTILINE)
        if found := deb822 or classic:
            return found[1]
    return FALLBACK[release()["ID"]]


def build(into: Path) -> None:
    """image.oci/, one gzip layer, tag debian, Cmd bash; python3 is in it. Needs root and a mirror."""
    codename = release()["VERSION_CODENAME"]
    rootfs = into / "rootfs"
    tools.run(
        "debootstrap", "--variant=minbase", "--include=python3", codename, rootfs, mirror(codename),
    )  # fmt: skip
    for downloaded in ("var/cache/apt/archives", "var/lib/apt/lists"):
        tools.run("find", rootfs / downloaded, "-type", "f", "-delete")
    tar = into / "rootfs.tar"
    tools.run("tar", "--format=pax", "--xattrs", "--xattrs-include=*", "-cf", tar, "-C", rootfs, ".")
    image = tools.new_layout(into / "image.oci", "debian")
    tools.add_layer(image, tar)
    tools.run("umoci", "config", "--image", image, "--config.cmd", "/bin/bash")
    tools.run("rm", "-rf", rootfs, tar)
