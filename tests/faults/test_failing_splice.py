"""Large reads where splice(2) fails, on the side of the file or of the device: same data, and the mount lives on."""

from __future__ import annotations

import errno
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
            assert (mounted.target / name).read_bytes() == content
    finally:
        mounted.unmount()
        os.close(answer)
        with os.fdopen(spliced, "rb") as pipe:
            assert pipe.read(), "no splice(2) failed"


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
