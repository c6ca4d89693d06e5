"""States, the lock and what is read back: without a container."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from launcher.container import config, keys, lock, state
from launcher.errors import UfsError
from launcher.sandbox import signal_names


def test_a_lock_is_held_by_whoever_inherited_it(tmp_path: Path) -> None:
    """Until the last of them ends; looking at it takes nothing."""
    directory = str(tmp_path)
    assert not lock.held(directory)
    held = lock.take(directory)
    assert held is not None
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.close(held)
    assert lock.held(directory)
    assert lock.take(directory) is None
    os.close(writer)
    os.close(reader)
    os.wait()
    assert not lock.held(directory)
    again = lock.take(directory)
    assert again is not None
    lock.release(again)


def test_the_lock_of_one_that_was_removed_is_nobodys(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        lock.take(str(tmp_path / "gone"))


RUNNING = state.Running(2.0, 1, 1, [], 1, "boot")
EVERY = {
    "created": state.Created(1.0),
    "starting": state.Starting(1.0, []),
    "running": RUNNING,
    "paused": state.Paused(*RUNNING, "signals"),
    "exited": state.Exited(3.0, 0, None, [], 2.0),
}
ALLOWED = {
    ("created", "starting"), ("starting", "running"), ("starting", "exited"), ("running", "paused"),
    ("running", "exited"), ("paused", "running"), ("paused", "exited"), ("exited", "starting"),
}  # fmt: skip


@pytest.mark.parametrize("before", EVERY)
@pytest.mark.parametrize("after", EVERY)
def test_transitions(tmp_path: Path, before: str, after: str) -> None:
    """Those of the table in docs/containers.md, and no others."""
    directory = str(tmp_path)
    state.write(directory, EVERY[before])
    assert state.read(directory) == EVERY[before]
    if (before, after) in ALLOWED:
        state.move(directory, EVERY[after])
        assert state.read(directory) == EVERY[after]
    else:
        with pytest.raises(UfsError, match=f"{before} cannot become {after}"):
            state.move(directory, EVERY[after])


@pytest.mark.parametrize(
    "text", ["", "[]", "\x00", '{"state":"x"}', '{"state":"running"}', '{"state":"created","at":"x"}']
)
def test_a_damaged_state_is_said_to_be(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    assert isinstance(state.observe(str(tmp_path)), state.Dead)


@pytest.mark.parametrize("text", ["", "[]", '{"id": 3}', '{"ids": [1, 2, 3]}', "null", "[" * 100000])
def test_a_damaged_config_is_said_to_be(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(state.Corrupt, match=r"config\.json"):
        config.read(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "number"), [("TERM", 15), ("sigterm", 15), ("9", 9), ("RTMIN", 34), ("SIGRTMIN+3", 37), ("RTMAX-1", 63)]
)
def test_signals(text: str, number: int) -> None:
    assert signal_names.number(text) == number


@pytest.mark.parametrize("text", ["", "0", "99", "NOSUCH", "-1", "RTMIN+99", "RTMIN-1", "1.5"])
def test_no_signals(text: str) -> None:
    with pytest.raises(UfsError, match="no signal"):
        signal_names.number(text)


def test_detach_keys() -> None:
    """In pieces of any size; a beginning that does not go on is passed on."""
    found = keys.DetachKeys("ctrl-p,ctrl-q")
    assert [found.pass_on(piece) for piece in (b"a\x10", b"b\x10", b"\x10", b"\x11after")] == [
        b"a",
        b"\x10b",
        b"\x10",
        b"",
    ]
    assert found.found
    assert keys.DetachKeys("").pass_on(b"\x10\x11") == b"\x10\x11"
    for wrong in ("ctrl-", "ab", "ctrl-é", ","):
        with pytest.raises(UfsError, match="is no key"):
            keys.sequence(wrong)
