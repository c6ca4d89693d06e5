"""Each system call of each kind of change fails once: the caller gets that errno and nothing has changed, or the change
was made whole; done again it succeeds. Nothing is left in the work directory.
"""

from __future__ import annotations

import errno
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.operations import FORMS, OPERATIONS, Place, State, opened, state
from tests.support import tracing
from tests.support.content import Lower

pytestmark = pytest.mark.only_root  # sets owners

CODES = [errno.EACCES, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_each_call_fails(tmp_path: Path, name: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if form == "files":
        monkeypatch.setenv("FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT", "1")
    lower = Lower(tmp_path / "lower", "image")
    before, change = OPERATIONS[name]
    base = tmp_path / "base"

    def failing(point: int, code: int, again: bool = False) -> tuple[int, State]:
        for part in ("upper", "work"):
            (base / part).mkdir(parents=True)

        def prepare() -> Callable[[], object]:
            place = Place(opened(lower, base, form))
            before(place)
            return lambda: _twice(lambda: change(place)) if again else change(place)

        try:
            how, status = tracing.run(prepare, point, code)
            assert how == tracing.ENDED
            return status, state(lower, base, form)
        finally:
            shutil.rmtree(base)

    _, new = failing(1 << 30, errno.EIO)
    old = None
    for point in itertools.count():
        code = CODES[(point + FORMS.index(form)) % len(CODES)]
        status, found = failing(point, code)
        if status == -1:
            assert point > 0
            return
        where = f"call {point}: {errno.errorcode[code]}, the operation: {errno.errorcode.get(status, status)}"
        if status == 0:
            assert found == new, where
        else:
            old = old or found
            assert status == code, where
            assert found == old, where
            assert failing(point, code, again=True) == (0, new), where


def _twice(call: Callable[[], object]) -> None:
    try:
        call()
    except OSError:
        call()
