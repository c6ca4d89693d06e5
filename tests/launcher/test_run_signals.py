"""Signals and terminals."""

from __future__ import annotations

import os
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.images import Images
from tests.launcher.running import Runner
from tests.launcher.terminals import Terminal
from tests.support.users import User
from tests.support.waiting import wait_until


@contextmanager
def started(run: Runner, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A container whose command has printed `ready`. It is killed where a test fails to end it."""
    command = ["ufs-run", "--rm", *words[:-1], run.image, "sh", "-c", words[-1]]
    with run.user.popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM, signal.SIGUSR1])
def test_unhandled_signals_end_the_command(run: Runner, number: int) -> None:
    """Although the kernel would not deliver them to a process 1."""
    with started(run, "echo ready; while :; do sleep 1; done") as process:
        process.send_signal(number)
        # Only the interrupt is passed on as such: see test_an_interrupt_ends_the_loop_around.
        assert process.wait(10) == (-number if number == signal.SIGINT else 128 + number)
    assert run.containers() == []


def test_an_early_interrupt_is_no_traceback(root_user: User, images: Images) -> None:
    """At whatever point of the start it comes."""
    image = images.path("busybox", "docker.tar")
    root_user.run(["ufs-run", "--rm", image, "true"], check=True)
    for step in range(40):
        with root_user.popen(["ufs-run", "--rm", image, "sleep", "9"], stderr=subprocess.PIPE, text=True) as process:
            time.sleep(step * 0.001)  # the moment is what is tried, not waited for
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            assert process.stderr.read() == ""
            assert process.wait(10) == -signal.SIGINT


@pytest.mark.parametrize("options", ["", "--init", "-t", "-it", "-it --init"])
def test_an_interrupt_ends_the_loop_around(run: Runner, terminals: list[Terminal], options: str) -> None:
    """As with any program: the shell sees by what the launcher died, and ends itself."""
    words = [*run.user.command(["ufs-run"]), "--rm", *options.split(), run.image]
    loop = f"while :; do {' '.join(words)} sh -c 'echo ready; sleep 9; true'; done"
    terminal = Terminal(run, program=["bash", "-c", loop])
    terminals.append(terminal)
    terminal.until(b"ready")
    terminal.type(b"\x03")
    assert terminal.process.wait(8) == -signal.SIGINT


@pytest.mark.parametrize(
    ("options", "command"), [("-it", "exec sleep 9"), ("-it", "sleep 9; echo after"), ("-it --init", "exec sleep 9")]
)
def test_an_interrupt_on_a_terminal_of_its_own(
    run: Runner, terminals: list[Terminal], options: str, command: str
) -> None:
    """The kernel keeps it from a process 1 that does not handle it; -i -t is no reason to be without Ctrl-C."""
    terminal = Terminal(run, *options.split(), "IMAGE", "sh", "-c", f"echo ready; {command}")
    terminals.append(terminal)
    terminal.until(b"ready")
    terminal.type(b"\x03")
    assert terminal.process.wait(8) == -signal.SIGINT
    assert termios.tcgetattr(terminal.slave) == terminal.before


def test_handled_signals_are_the_commands(run: Runner) -> None:
    script = "trap 'echo got; exit 4' TERM; trap '' HUP; echo ready; while :; do sleep 0.05; done"
    with started(run, script) as process:
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.read() == "got\n"
        assert process.wait(10) == 4


def test_init_reaps_and_forwards(run: Runner) -> None:
    script = "echo ready; (sleep 0.01 &) ; while :; do sleep 1; done"
    with started(run, "--init", script) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 143
    with started(run, "--init", "trap 'echo got; exit 4' TERM; echo ready; while :; do sleep 0.05; done") as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.read() == "got\n"
        assert process.wait(10) == 4
    assert run("--init", "IMAGE", "sh", "-c", "exit 9").returncode == 9
    assert run("--init", "IMAGE", "nosuch").returncode == 127


def test_a_signal_is_not_lost_while_the_command_forks(run: Runner) -> None:
    """C libraries block every signal for the length of a fork: what a process 1 unblocks then, the kernel drops."""
    for _ in range(15):
        with started(run, "echo ready; while :; do /bin/true; done") as process:
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 143


def test_a_signal_that_the_command_waits_for_is_its_own(run: Runner) -> None:
    script = "import signal as s; s.pthread_sigmask(0, [15]); print('ready', flush=True); print(int(s.sigwait([15]))); "
    command = ["ufs-run", "--rm", "host", "/usr/bin/python3", "-c", script + "s.sigtimedwait([15], 0.2)"]
    with run.user.popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "15\n"
        assert process.wait(10) == 0


def test_stop_and_continue(run: Runner) -> None:
    with started(run, "echo ready; while :; do sleep 0.05; done") as process:
        process.send_signal(signal.SIGTSTP)
        assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 143


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def test_interactive_shell(run: Runner, terminals: list[Terminal]) -> None:
    terminal = Terminal(run, "-it", "IMAGE", "sh", "-c", "PS1='> ' exec sh")
    terminals.append(terminal)
    terminal.until(b"> ")
    assert not termios.tcgetattr(terminal.slave)[3] & termios.ECHO, "the caller's terminal is raw meanwhile"
    terminal.type(b"tty; stty size; test -c /dev/console && echo con''sole\n")
    terminal.until(b"/dev/pts/0\r\n33 99\r\nconsole")
    terminal.resize(11, 77)
    terminal.type(b"sleep 0.2; stty size\n")
    terminal.until(b"11 77")
    terminal.type(b"echo be''gin; sleep 100; echo af''ter\n")
    terminal.until(b"begin")
    terminal.until(b"> ", pressing=b"\x03")  # the first ones may come while the shell is still about to fork
    terminal.type(b"exit 5\n")
    assert terminal.process.wait(10) == 5
    assert termios.tcgetattr(terminal.slave) == terminal.before


@pytest.mark.parametrize("options", ["", "-i", "-t", "-it"])
def test_a_terminal_can_be_opened_by_name(run: Runner, terminals: list[Terminal], options: str) -> None:
    """Also by who is not root; the caller's own terminal stays the caller's."""
    script = """
        echo o''ne > /dev/stdout; echo t''wo > /proc/self/fd/1; test -t 0 && echo thr''ee > /dev/tty
        read x < /dev/stdin; id -un
    """
    terminal = Terminal(run, *options.split(), "-u", "somebody", "IMAGE", "sh", "-c", script)
    terminals.append(terminal)
    terminal.until(b"one")
    terminal.until(b"two")
    if "t" in options:
        terminal.until(b"three")
    if "i" in options or "t" in options:
        terminal.type(b"line\n")
    if options != "-t":  # nobody passes input on
        terminal.until(b"somebody")
        assert terminal.process.wait(10) == 0
    else:
        terminal.process.kill()
    assert os.fstat(terminal.slave).st_uid == run.user.uid


def test_an_interrupt_before_further_keys_is_not_what_ended_it(run: Runner, terminals: list[Terminal]) -> None:
    """A shell remembers that a command was interrupted, and exits with 130 when it is left much later."""
    terminal = Terminal(run, "-it", "IMAGE", "sh", "-c", "PS1='> ' exec sh")
    terminals.append(terminal)
    terminal.until(b"> ")
    terminal.type(b"echo be''gin; sleep 9\n")
    terminal.until(b"begin")
    terminal.until(b"> ", pressing=b"\x03")
    terminal.type(b"exit 130\n")
    assert terminal.process.wait(10) == 130


def test_terminal_is_restored_after_a_failure(run: Runner, terminals: list[Terminal]) -> None:
    terminal = Terminal(run, "-it", "IMAGE", "nosuchprogram")
    terminals.append(terminal)
    assert terminal.process.wait(20) == 127
    assert termios.tcgetattr(terminal.slave) == terminal.before


def test_end_of_file_ends_a_shell(run: Runner, terminals: list[Terminal]) -> None:
    terminal = Terminal(run, "-it", "IMAGE", "cat")
    terminals.append(terminal)
    terminal.type(b"one\n")
    terminal.until(b"one\r\none\r\n")
    terminal.type(b"\x04")
    assert terminal.process.wait(10) == 0


def test_all_output_of_a_terminal_arrives(run: Runner, terminals: list[Terminal]) -> None:
    terminal = Terminal(run, "-t", "IMAGE", "sh", "-c", "seq 1 20000; echo the end")
    terminals.append(terminal)
    terminal.until(b"\n19999\r\r\n20000\r\r\nthe end\r\r\n")  # without -i the caller's terminal stays cooked
    assert terminal.process.wait(10) == 0


def test_ctrl_c_without_a_terminal_of_its_own(run: Runner, terminals: list[Terminal]) -> None:
    """The terminal stays cooked, so its Ctrl-C is a signal for the launcher, which passes it on once."""
    script = "trap 'echo once; exit 3' INT; echo ready; while :; do sleep 0.05; done"
    terminal = Terminal(run, "IMAGE", "sh", "-c", script)
    terminals.append(terminal)
    terminal.until(b"ready")
    terminal.type(b"\x03")
    terminal.until(b"once")
    assert terminal.process.wait(10) == 3


def test_a_terminal_needs_one(run: Runner) -> None:
    done = run("-it", "IMAGE", "true")
    assert (done.returncode, "not a TTY" in done.stderr) == (125, True)
    assert run("-t", "IMAGE", "tty", text=False).stdout == b"/dev/pts/0\r\n"


def test_background_processes_end_with_the_command(run: Runner) -> None:
    assert run.out("IMAGE", "sh", "-c", "sleep 1000 & echo x") == "x\n"
    wait_until(lambda: run.containers() == [], "the container to be gone")
