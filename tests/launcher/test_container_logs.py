"""`ufs logs`, and how it is recorded."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from launcher.container import logs
from launcher.container.config import Log
from tests.launcher.containers import Containers
from tests.support.waiting import wait_until


def test_streams_times_and_tail(ufs: Containers) -> None:
    """Also in the foreground, where the caller sees the same."""
    script = "for i in 1 2 3; do echo out $i; echo err $i >&2; done; printf 'no end'"
    seen = ufs.run("run", "--name", "ll", "IMAGE", "sh", "-c", script)
    done = ufs.run("logs", "ll")
    assert (
        (done.stdout, done.stderr)
        == (seen.stdout, seen.stderr)
        == ("out 1\nout 2\nout 3\nno end", "err 1\nerr 2\nerr 3\n")
    )
    assert ufs.run("logs", "--tail", "0", "ll").stdout == ""
    stamped = ufs.run("logs", "-t", "ll").stdout.splitlines()
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (out \d|no end)", line) for line in stamped)
    middle = stamped[1].split(" ")[0]
    assert "out 1" not in ufs.run("logs", "--since", middle, "ll").stdout or stamped[0].startswith(middle)
    assert ufs.run("logs", "--until", "1999-01-01T00:00:00Z", "ll").stdout == ""
    assert ufs.run("logs", "--since", "10m", "ll").stdout == seen.stdout
    assert "give a time" in ufs.fails("logs", "--since", "yesterday", "ll")
    assert "give a number of lines" in ufs.fails("logs", "--tail", "x", "ll")


def test_follow(ufs: Containers) -> None:
    ufs.background("--name", "ff", script="trap 'echo end; exit' TERM; echo begin; while :; do sleep 0.02; done")
    with ufs.user.popen(["ufs", "logs", "-f", "ff"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begin\n"
        ufs.out("stop", "ff")
        assert process.stdout.read() == "end\n"
        assert process.wait(10) == 0


def test_none(ufs: Containers) -> None:
    assert ufs.out("run", "--name", "nn", "--log-driver", "none", "IMAGE", "echo", "word") == "word"
    assert "--log-driver none" in ufs.fails("logs", "nn")
    assert "there are k8s-file and none" in ufs.fails("run", "--log-driver", "syslog", "IMAGE", "true", status=125)
    assert "max-size and max-file" in ufs.fails("run", "--log-opt", "x=1", "IMAGE", "true", status=125)


def test_rotation_keeps_the_last_lines_whole(ufs: Containers) -> None:
    options = ("--log-opt", "max-size=10k", "--log-opt", "max-file=3")
    identity = ufs.background("--name", "rr", *options, script="seq 1 3000")
    assert ufs.out("wait", "rr") == "0"
    sizes = [path.stat().st_size for path in (ufs.user.store / "containers" / identity).glob("log*")]
    assert len(sizes) == 3
    assert max(sizes) <= 10240
    lines = ufs.out("logs", "rr").splitlines()
    assert lines == [str(number) for number in range(int(lines[0]), 3001)]
    assert len(lines) > 300
    assert ufs.out("logs", "--tail", "400", "rr").splitlines() == lines[-400:]


@pytest.mark.parametrize("sizes", [Log(max_size=1), Log(max_size=100, max_file=1), Log(max_size=1000, max_file=5)])
def test_writer_and_parts(tmp_path: Path, sizes: Log) -> None:
    """Any bytes, in pieces of any length, give parts that are within the limits where lines are."""
    writer = logs.Writer(str(tmp_path), sizes)
    for piece in (b"a\n", b"", b"bb", b"c\nd", b"\n\n\n", b"\x00\xff stdout F x\n", b"long" * 100 + b"\n", b"end"):
        writer.write(b"stdout", piece)
    writer.close()
    parts = logs.parts(str(tmp_path))
    assert 1 <= len(parts) <= sizes.max_file
    for path in parts:
        text = Path(path).read_bytes()
        assert text.endswith(b"\n")
        assert len(text) <= sizes.max_size or text.count(b"\n") == 1


@pytest.mark.parametrize("killed", [False, True])
def test_a_flood_leaves_what_the_log_can_hold(tmp_path: Path, killed: bool) -> None:
    """As much as without the detour by raw files, to the last line, none twice; also when its writer was killed."""
    options, told = Log(max_size=1 << 20, max_file=3), []
    writer = logs.Writer(str(tmp_path), options, lambda: told.append(True))
    numbers = iter(range(10**9))
    for _ in range(400):
        writer.write(b"stdout", b"".join(b"%d\n" % next(numbers) for _ in range(5000)))
    assert told == [True]
    last = next(numbers) - 1
    most = sum(path.stat().st_size for path in tmp_path.glob("log.raw*"))
    assert most < 2 * 3 * (1 << 20), "raw files are bounded, too"
    if killed:
        logs.Writer(str(tmp_path), options).recover()
    writer.close()
    assert not list(tmp_path.glob("log.raw*"))
    lines = [line.split(b" ")[3] for path in logs.parts(str(tmp_path)) for line in Path(path).read_bytes().splitlines()]
    assert lines == [b"%d" % number for number in range(last - len(lines) + 1, last + 1)]
    assert sum(os.path.getsize(path) for path in logs.parts(str(tmp_path))) > 2 << 20


def test_a_full_disk_is_said_and_does_not_stop_it(tmp_path: Path) -> None:
    os.symlink("/dev/full", tmp_path / "log")
    writer = logs.Writer(str(tmp_path), Log())
    writer.write(b"stdout", b"lost\n")
    writer.close()
    os.unlink(tmp_path / "log")
    writer.write(b"stdout", b"kept\n")
    writer.close()
    text = (tmp_path / "log").read_text()
    assert "5 bytes of output are missing here: No space left on device" in text
    assert text.endswith(" stdout F kept\n")


def test_nobody_reads(ufs: Containers) -> None:
    """A container in the background never waits for a reader, and its output is there to the last line."""
    ufs.background("--name", "bb", script="seq 1 200000; echo done")
    assert ufs.out("wait", "bb") == "0"
    lines = ufs.out("logs", "bb").splitlines()
    assert (len(lines), lines[-1]) == (200001, "done")


def test_the_last_words_of_one_that_was_killed(ufs: Containers) -> None:
    ufs.background("--name", "ww", script="while :; do echo x; done")
    wait_until(lambda: ufs.run("logs", "--tail", "1", "ww").stdout == "x\n", "output")
    ufs.out("kill", "ww")
    assert set(ufs.out("logs", "ww").splitlines()) == {"x"}
