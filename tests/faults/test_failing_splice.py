"""Large reads where splice(2) fails, on the side of the file or of the device: same data, and the mount lives on."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.mounted import Mounted
from unionfs.live.directories import DirectoryStack


@pytest.mark.parametrize("side", ["file", "device"])
@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOMEM, errno.EIO])
@pytest.mark.parametrize("every", [1, 3])
def test_what_cannot_be_spliced_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: str, code: int, every: int
) -> None:
    (tmp_path / "lower").mkdir()
    content = os.urandom((1 << 20) + 777)
    for name in ("one", "two"):
        (tmp_path / "lower" / name).write_bytes(content)
    spliced, answer = os.pipe()
    monkeypatch.setattr(os, "splice", _failing(os.splice, side, code, every, answer))
    mounted = Mounted(tmp_path, lambda: DirectoryStack([os.fsencode(tmp_path / "lower")]), "direct")
    mounted.mount()
    try:
        for name in ("one", "two"):
            assert _directly(mounted.target / name) == content
    finally:
        mounted.unmount()
        os.close(answer)
        with os.fdopen(spliced, "rb") as pipe:
            assert pipe.read(), "no splice(2) failed"


def _directly(path: Path) -> bytes:
    """The content by O_DIRECT: a read(2) is a request. Through the page cache one that fails is made again in pages."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    data = b""
    with mmap.mmap(-1, 128 << 10) as buffer:  # aligned, as O_DIRECT wants it
        while length := os.preadv(fd, [buffer], len(data)):
            data += buffer[:length]
    os.close(fd)
    return data


def _failing(splice: Callable[..., int], side: str, code: int, every: int, failed: int) -> Callable[..., int]:
    """splice(2) of which every so manieth call on one side fails; each of these writes a byte to a pipe."""
    calls = 0

    def instead(*args: int, **named: int) -> int:
        nonlocal calls
        if ("offset_src" in named) == (side == "file"):
            calls += 1
            if calls % every == 0:
                os.write(failed, b"+")
                raise OSError(code, os.strerror(code))
        return splice(*args, **named)

    return instead
