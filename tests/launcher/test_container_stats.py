"""`ufs stats`: what containers use."""

from __future__ import annotations

import json
import os
import pty
import signal
from pathlib import Path
from typing import Any

from launcher.cli import output
from tests.launcher.containers import Containers
from tests.support.waiting import wait_until

ONCE = ("stats", "--no-stream", "--interval", "0.3")
BUSY = "dd if=/dev/zero of=/dev/null bs=40M"


def shown(ufs: Containers, *words: str) -> dict[str, Any]:
    return dict(json.loads(ufs.out(*ONCE, "--format", "json", *words)))


def test_time_memory_and_processes(ufs: Containers) -> None:
    """Against what the kernel says of the one process that does something."""
    identity = ufs.background("--name", "busy", script=BUSY)
    pid = ufs.saved(identity)["pid"]
    wait_until(lambda: resident(pid) > 40_000, "the memory")
    found = shown(ufs, "busy")
    assert (found["Name"], found["ID"], found["NetIO"]) == ("busy", identity[:12], "-- / --")
    assert float(found["CPUPerc"].removesuffix("%")) > 1
    used, limit = found["MemUsage"].split(" / ")
    assert 40 <= float(used.removesuffix("MiB")) < 50
    assert limit[-3:] in ("MiB", "GiB")
    assert found["MemPerc"].endswith("%")
    assert found["PIDs"] == str(len(os.listdir(f"/proc/{pid}/task")) + children(pid))
    ufs.out("exec", "-d", "busy", "sleep", "1000")
    wait_until(lambda: int(shown(ufs, "busy")["PIDs"]) > int(found["PIDs"]), "what exec runs")


def resident(pid: int) -> int:
    """Kilobytes, of a process and its children."""
    pids = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    return sum(
        int(line.split()[1]) for one in pids for line in Path(f"/proc/{one}/status").read_text().splitlines()
        if line.startswith("VmRSS:")
    )  # fmt: skip


def children(pid: int) -> int:
    return len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def test_input_and_output_count_that_of_the_server(ufs: Containers) -> None:
    """It reads and writes the files for the processes."""
    saved = ufs.saved(ufs.background("--name", "ww", script="exec sleep 1000"))
    ufs.out("exec", "ww", "sh", "-c", "dd if=/dev/zero of=/f bs=1M count=8 2>/dev/null; sync /f")
    sums = [0, 0]
    for pid in (saved["pid"], saved["server"]):
        fields = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
        sums = [sums[0] + int(fields["read_bytes"]), sums[1] + int(fields["write_bytes"])]
    assert shown(ufs, "ww")["BlockIO"] == " / ".join(output.size(count) for count in sums)


def test_the_table(root_ufs: Containers) -> None:
    """Docker's columns; of what does not run nothing is known."""
    root_ufs.background("--name", "runs")
    root_ufs.out("create", "--name", "idle", "IMAGE", "true")
    head, *rows = root_ufs.out(*ONCE).splitlines()
    titles = ["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"]
    assert [title.strip() for title in head.split("   ") if title.strip()] == titles
    assert [row.split()[1] for row in rows] == ["runs"]
    assert sorted(root_ufs.out(*ONCE, "--all", "--format", "{{.Name}} {{.PIDs}}").splitlines()) == ["idle --", "runs 2"]
    assert root_ufs.out(*ONCE, "--format", "{{.CPUPerc}} {{.MemUsage}}", "idle") == "-- -- / --"
    assert "no container 'nosuch'" in root_ufs.fails("stats", "--no-stream", "nosuch")


def test_on_a_terminal_it_is_drawn_again_until_ctrl_c(root_ufs: Containers) -> None:
    root_ufs.background("--name", "runs")
    master, slave = pty.openpty()
    process = root_ufs.user.popen(["ufs", "stats", "--interval", "0.05"], stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    seen = b""
    while seen.count(b"\x1b[H") < 3:
        seen += os.read(master, 4096)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    os.close(master)
    assert seen.count(b"CONTAINER ID") >= 2
