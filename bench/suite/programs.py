"""Running a program and timing it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from pathlib import Path

MOST_SECONDS = 90.0


class Failed(Exception):
    """A program ended with an error, or did not end in time."""


def timed(command: str, directory: Path, environment: dict[str, str]) -> float:
    """Seconds that a shell command takes; `Failed` with the end of what it said."""
    log = Path(environment["TMPDIR"]) / "said"
    with open(log, "wb") as said:
        begin = time.perf_counter()
        process = subprocess.Popen(
            ["sh", "-ec", command], cwd=directory, env=environment,
            stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
        )  # fmt: skip
        try:
            ended = _ends(process)
            seconds = time.perf_counter() - begin
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if not ended:
        raise Failed(f"was not done after {MOST_SECONDS:.0f} s")
    if process.returncode:
        raise Failed(f"ended with {process.returncode}: {_end_of(log)}")
    return seconds


def _ends(process: subprocess.Popen[bytes]) -> bool:
    """Wait by a pidfd: wait(2) with a time limit is a loop of sleeps in Python, which would count."""
    descriptor = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(MOST_SECONDS * 1000))
    finally:
        os.close(descriptor)


def _end_of(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return " | ".join(line.strip()[:200] for line in lines if line.strip())[-400:] or "nothing was said"


def environment(area: Path) -> dict[str, str]:
    """Nothing of the user's settings: a home of its own, the C locale, temporaries beside the content."""
    settings = area / "home" / "gitconfig"
    settings.write_text(
        "[user]\n\tname = bench\n\temail = bench@localhost\n"
        "[safe]\n\tdirectory = *\n[init]\n\tdefaultBranch = main\n[gc]\n\tauto = 0\n"
    )
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(area / "home"),
        "TMPDIR": str(area / "tmp"),
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": str(settings),
        "CONTENT": str(area / "c"),
        "SUITE": str(Path(__file__).parent),
    }
