"""`ufs attach`, `start --attach`, and containers with a terminal."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.launcher.containers import Containers
from tests.launcher.terminals import Terminal
from tests.support.waiting import wait_until


@pytest.fixture
def terminals(ufs: Containers) -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def open_terminal(ufs: Containers, terminals: list[Terminal], *words: str) -> Terminal:
    terminal = Terminal(ufs, *words, program=("ufs",))
    terminals.append(terminal)
    return terminal


def test_leave_and_come_back(ufs: Containers, terminals: list[Terminal]) -> None:
    first = open_terminal(ufs, terminals, "run", "-it", "--name", "sh", "IMAGE", "sh")
    first.until(b"# ")
    first.type(b"A=word; stty size\n")
    first.until(b"33 99")
    first.type(b"\x10\x11")
    assert first.process.wait(10) == 0
    assert ufs.state("sh") == "running"
    again = open_terminal(ufs, terminals, "attach", "--detach-keys", "ctrl-x,x", "sh")
    again.type(b"echo again $A\n")
    again.until(b"again word\r\n")
    again.type(b"\x10")  # not the sequence here: the shell has it
    again.type(b"\x18x")
    assert again.process.wait(10) == 0
    last = open_terminal(ufs, terminals, "attach", "sh")
    last.type(b"echo he''re\n")
    last.until(b"here")
    last.type(b"\x03\nexit 9\n")
    assert last.process.wait(10) == 9
    assert ufs.status("sh").startswith("Exited (9)")
    assert "again word" in ufs.run("logs", "sh").stdout


def test_pasted_text_arrives_whole(ufs: Containers, terminals: list[Terminal]) -> None:
    script = "stty raw -echo; echo go; head -c 300000 > /pasted; echo done"
    terminal = open_terminal(ufs, terminals, "run", "-it", "--name", "paste", "IMAGE", "sh", "-c", script)
    terminal.until(b"go")
    text = b"0123456789" * 30000
    for start in range(0, len(text), 1000):
        terminal.type(text[start : start + 1000])
    terminal.until(b"done")
    assert terminal.process.wait(10) == 0
    (directory,) = (ufs.user.store / "containers").iterdir()
    assert (directory / "upper" / "pasted").read_bytes() == text


def test_a_terminal_for_exec(ufs: Containers, terminals: list[Terminal]) -> None:
    ufs.background("--name", "web")
    terminal = open_terminal(ufs, terminals, "exec", "-it", "web", "sh")
    terminal.until(b"# ")
    terminal.type(b"tty; stty size\n")
    terminal.until(b"/dev/pts/0\r\n33 99")
    terminal.resize(11, 77)
    terminal.type(b"stty size\n")
    terminal.until(b"11 77")
    terminal.type(b"exit 6\n")
    assert terminal.process.wait(10) == 6


def test_start_attached(ufs: Containers) -> None:
    """The exit status and both streams are the container's, and its input ends with this one's."""
    ufs.out("create", "-i", "--name", "cat", "IMAGE", "sh", "-c", "cat; echo err >&2; exit 3")
    for _ in range(2):
        done = ufs.run("start", "-ai", "cat", input="words\n" * 50000)
        assert (done.returncode, done.stdout, done.stderr) == (3, "words\n" * 50000, "err\n")
    assert "one container can be attached" in ufs.run("start", "-a", "cat", "cat").stderr


def test_attach_passes_signals_on(ufs: Containers) -> None:
    ufs.background("--name", "tt", script="trap 'echo term; exit 4' TERM; while :; do echo x; sleep 0.02; done")
    with ufs.user.popen(["ufs", "attach", "--no-stdin", "tt"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "x\n"
        process.terminate()
        assert process.stdout.read().endswith("term\n")
        assert process.wait(10) == 4


def test_one_that_leaves_does_no_harm(ufs: Containers) -> None:
    """Killed, or without a reader: the container goes on, and whoever attaches next sees it."""
    ufs.background("--name", "tt", script="while :; do echo x; done")
    for _ in range(2):
        with ufs.user.popen(["ufs", "attach", "tt"], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.read(2) == b"x\n"
            process.kill()
    before = ufs.run("logs", "--tail", "1", "-t", "tt").stdout
    wait_until(lambda: ufs.run("logs", "--tail", "1", "-t", "tt").stdout > before, "it to go on")
    ufs.out("kill", "tt")
    assert "is not running: start it first" in ufs.fails("attach", "tt")
