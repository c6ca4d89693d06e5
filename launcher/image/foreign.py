"""What other tools call an image and is neither a name in the store nor a path: what it looks like, what to do now.

The transports are those of github.com/containers/image (containers-transports(5)).
"""

from __future__ import annotations

_ENGINES = {
    "containers-storage": "podman save -o image.tar {0}",
    "docker-daemon": "docker save -o image.tar {0}",
}
_PATHS = ("oci", "oci-archive", "docker-archive", "dir")
_ARCHIVES = (".tar", ".tgz", ".txz", ".tar.gz", ".tar.xz", ".tar.zst", ".tar.bz2", ".oci")
_PAGES = {
    # Pages of registries on which people look for an image: host and beginning of the path to the name's beginning.
    "hub.docker.com/_/": "",
    "hub.docker.com/r/": "",
    "hub.docker.com/layers/library/": "",
    "hub.docker.com/layers/": "",
    "quay.io/repository/": "quay.io/",
}


def explain(text: str) -> str | None:
    """One line for a reference of another tool; None for what is none."""
    kind, colon, rest = text.partition(":")
    if kind in ("http", "https") and rest.startswith("//"):
        return _of_web(text, rest.strip("/"))
    if kind == "docker" and rest.startswith("//"):
        name = rest.strip("/")
        return f"{text} is an image in a registry, in skopeo's words; write {name}, and ufs pull {name} to fetch it"
    if colon and kind in _ENGINES:
        name = rest.rpartition("]")[2]
        return f"{text} is an image of another engine: {_ENGINES[kind].format(name)}, then ufs load image.tar"
    if colon and kind in _PATHS and rest:
        return f"{text} is skopeo's way to write a path; give the path alone: {_path(rest)}"
    if rest.startswith("//"):
        return f"{text} is an address, not an image; fetch its archive with the tool for {kind}, then ufs load FILE"
    return None


def _of_web(text: str, rest: str) -> str:
    address = rest.partition("?")[0].partition("#")[0]
    if address.endswith(_ARCHIVES):
        return f"{text} is a file on the web: curl -fLO {text}, then ufs load {address.rpartition('/')[2]}"
    for page, registry in _PAGES.items():
        if address.startswith(page):
            parts = address.removeprefix(page).split("/")
            count = 1 if page.endswith(("_/", "library/")) else 2
            return _of_page(text, registry + "/".join(parts[:count]))
    return _of_page(text, address)


def _of_page(text: str, name: str) -> str:
    return f"{text} is a web address, not an image; if the image is {name}: ufs pull {name}"


def _path(rest: str) -> str:
    """The path of PATH[:REFERENCE]."""
    return rest.partition(":")[0]
