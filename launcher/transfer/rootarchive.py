"""The archive of a root file system as a layer in a workspace: from a file, standard input or the web."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from launcher.errors import UfsError
from launcher.image.compression import detect, inflate
from launcher.image.workspace import Workspace

_HEAD = 512
_CHUNK = 1 << 20


def fetch(source: str, workspace: Workspace) -> str:
    """Write the archive, decompressed, to a temporary of the workspace: its path. UfsError where it is none."""
    if source.startswith(("http://", "https://")):
        return _from_web(source, workspace)
    if os.path.isdir(source):
        raise UfsError(f"{source} is a directory; give an archive of it: tar -C {source} -c . | ufs import -")
    label = "standard input" if source == "-" else source
    with open(os.dup(0) if source == "-" else os.open(source, os.O_RDONLY | os.O_CLOEXEC), "rb", _CHUNK) as file:
        return _stored(file.read, label, workspace)


def _from_web(url: str, workspace: Workspace) -> str:
    import httpx

    from launcher.registry import tls

    try:
        host = httpx.URL(url).netloc.decode("ascii")
        with (
            httpx.Client(verify=tls.context(host, False), follow_redirects=True, timeout=60) as client,
            client.stream("GET", url) as answer,
        ):
            if answer.is_error:
                raise UfsError(f"{url}: the server answers {answer.status_code} {answer.reason_phrase}")
            return _stored(_reader(answer.iter_raw(_CHUNK)), url, workspace)
    except httpx.HTTPError as error:
        raise UfsError(f"{url} cannot be read: {error or type(error).__name__}") from None
    except httpx.InvalidURL as error:
        raise UfsError(f"{url}: {error}") from None


def _reader(pieces: Iterator[bytes]) -> Callable[[int], bytes]:
    """read(size), which gives less at the end alone."""
    rest = b""

    def read(size: int) -> bytes:
        nonlocal rest
        while len(rest) < size and (piece := next(pieces, b"")):
            rest += piece
        found, rest = rest[:size], rest[size:]
        return found

    return read


def _stored(read: Callable[[int], bytes], label: str, workspace: Workspace) -> str:
    head = read(_HEAD)
    if not head:
        raise UfsError(f"{label} is empty; give the archive of a root file system, as ufs export writes it")

    def more(size: int) -> bytes:
        nonlocal head
        if head:
            found, head = head[:size], head[size:]
            return found
        return read(size)

    fd, path = workspace.temporary()
    with open(fd, "wb", _CHUNK) as file:
        for piece in inflate(detect(head, label), more, label):
            file.write(piece)
    return path
