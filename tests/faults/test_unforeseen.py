"""What nobody foresaw in the server: EIO for the caller, a traceback in the log, and a mount that lives on."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.content import BIG, build_plain
from tests.support.mounted import Mounted
from tests.support.systems import raises
from unionfs import copying
from unionfs.live.directories import DirectoryStack
from unionfs.serve import ENGINES


class Broken(DirectoryStack):
    """Live directories with a defect."""

    def lookup(self, parent: int, name: bytes) -> int:
        if name == b"defect":
            raise RuntimeError("nobody foresaw this")
        return super().lookup(parent, name)

    def entry(self, parent: int, name: bytes) -> bytes | memoryview | None:
        if name == b"defect":
            raise KeyError(name)
        return super().entry(parent, name)


@pytest.fixture(params=ENGINES)
def mounted(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mounted]:
    def defect(*_: int) -> None:
        raise RuntimeError("in the worker")

    monkeypatch.setattr(copying, "copy_file", defect)
    build_plain(tmp_path / "lower")
    mounted = Mounted(tmp_path, lambda: Broken([os.fsencode(tmp_path / "lower")]), request.param)
    mounted.mount()
    yield mounted
    mounted.unmount()


def test_an_unforeseen_exception_is_eio(mounted: Mounted) -> None:
    for _ in range(2):
        with raises(errno.EIO):
            os.stat(mounted.target / "defect")
        with raises(errno.EIO):
            (mounted.target / "defect").touch()
        (mounted.target / "new").write_text("still here")
        assert (mounted.target / "new").read_text() == "still here"
    with raises(errno.EIO):
        os.chmod(mounted.target / "big", 0o600)
    with raises(errno.EIO):
        os.truncate(mounted.target / "big", BIG - 1)
    assert (mounted.target / "big").read_bytes() == b"0123456789abcdef" * (BIG // 16)
    assert not os.listdir(mounted.work / "work")
    log = mounted.take_log()
    assert log.count("Traceback (most recent call last)") >= 4
    assert log.count("RuntimeError: in the worker") == 2
    assert "KeyError: b'defect'" in log or "nobody foresaw this" in log
