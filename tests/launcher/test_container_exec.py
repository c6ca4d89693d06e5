"""`ufs exec`: a further command in a running container."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from launcher.sandbox import capabilities
from tests.launcher.containers import Containers
from tests.support.users import PLAIN
from tests.support.waiting import wait_until

NAMESPACES = "for n in user mnt pid ipc uts cgroup net; do readlink /proc/$0/ns/$n; done"


def test_it_is_in_all_namespaces_with_the_rights_of_the_container(ufs: Containers) -> None:
    ufs.background("--name", "web", "-w", "/tmp", "-e", "A=1", "--cap-drop", "CHOWN")
    assert ufs.out("exec", "web", "sh", "-c", NAMESPACES, "1") == ufs.out("exec", "web", "sh", "-c", NAMESPACES, "self")
    script = "pwd; echo $A $HOSTNAME; grep -E '^(Cap(Eff|Prm|Bnd|Inh|Amb)|NoNewPrivs|Seccomp):' /proc/self/status"
    mine = ufs.out("exec", "web", "sh", "-c", script).splitlines()
    docker = sum(1 << number for number in capabilities.DEFAULT) & ~1
    assert mine[:1] + mine[2:] == [
        "/tmp",
        f"CapInh:\t{0:016x}", f"CapPrm:\t{docker:016x}", f"CapEff:\t{docker:016x}", f"CapBnd:\t{docker:016x}",
        f"CapAmb:\t{0:016x}", "NoNewPrivs:\t1", "Seccomp:\t2",
    ]  # fmt: skip
    assert mine[1] == f"1 {ufs.out('inspect', '-f', '{{.Config.Hostname}}', 'web')}"
    assert ufs.run("exec", "web", "unshare", "-m", "true").returncode != 0
    bounding = ufs.out("exec", "--privileged", "web", "grep", "CapBnd", "/proc/self/status").split()[1]
    assert (
        int(bounding, 16) & sum(1 << number for number in capabilities.NUMBERS.values()) == int(bounding, 16) > docker
    )


def test_streams_statuses_and_options(ufs: Containers) -> None:
    ufs.background("--name", "web")
    done = ufs.run("exec", "-i", "web", "sh", "-c", "cat; echo err >&2; exit 7", input="in\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, "in\n", "err\n")
    assert ufs.out("exec", "web", "cat") == "", "without -i there is no input"
    assert ufs.run("exec", "web", "sh", "-c", "kill -9 $$").returncode == 137
    assert "not found in PATH" in ufs.fails("exec", "web", "nosuch", status=127)
    assert "cannot run /etc" in ufs.fails("exec", "web", "/etc", status=126)
    assert "no user 'nobody-here'" in ufs.fails("exec", "-u", "nobody-here", "web", "true", status=125)
    assert ufs.out("exec", "-e", "B=2", "-w", "/usr", "web", "sh", "-c", "echo $B $PWD") == "2 /usr"
    assert ufs.out("exec", "-u", "33:44", "web", "sh", "-c", "id -u; id -g") == "33\n44"
    assert ufs.run("exec", "-it", "web", "true").returncode == 1
    assert ufs.out("exec", "-d", "web", "sh", "-c", "echo here > /made") == ""
    wait_until(lambda: ufs.run("exec", "web", "cat", "/made").stdout == "here\n", "the file")


def test_it_needs_a_running_container(ufs: Containers) -> None:
    ufs.out("create", "--name", "idle", "IMAGE", "true")
    assert "is created, not running: start it first" in ufs.fails("exec", "idle", "true")
    assert "no container 'nosuch'" in ufs.fails("exec", "nosuch", "true")


def test_a_command_ends_with_its_container(ufs: Containers) -> None:
    ufs.background("--name", "web")
    with ufs.user.popen(["ufs", "exec", "web", "sh", "-c", "echo in; sleep 1000"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"in\n"
        ufs.out("kill", "web")
        assert process.wait(10) == 137


def test_nothing_of_the_host_is_open_in_it(ufs: Containers) -> None:
    """Neither a descriptor nor, for others of the container, its program: CVE-2019-5736, CVE-2024-21626."""
    ufs.background("--name", "web")
    directory = os.open("/", os.O_RDONLY)
    try:
        shown = ufs.user.run(["ufs", "exec", "web", "ls", "/proc/self/fd"], check=True, pass_fds=(directory,)).stdout
    finally:
        os.close(directory)
    assert shown.split() == ["0", "1", "2", "3"], "3 is the listing itself"


def test_many_at_once(ufs: Containers) -> None:
    ufs.background("--name", "web")
    with ThreadPoolExecutor(10) as pool:
        done = list(pool.map(lambda number: ufs.run("exec", "web", "sh", "-c", f"exit {number}"), range(20)))
    assert [one.returncode for one in done] == list(range(20)), [one.stderr for one in done]
    assert ufs.out("exec", "web", "sh", "-c", "ls -d /proc/[0-9]*").splitlines()[0] == "/proc/1"


@pytest.mark.parametrize("options", [("-u", "33"), ("--init",), ("-t",)])
def test_into_other_kinds_of_container(ufs: Containers, options: tuple[str, ...]) -> None:
    """Whose command is in a nested user namespace (one id and -u), is not process 1, or has a terminal."""
    ufs.background("--name", "web", *options)
    expected = "33" if "-u" in options else "0"
    assert ufs.out("exec", "web", "id", "-u") == expected
    if ufs.user.kind != PLAIN:
        assert ufs.out("exec", "-u", "0", "web", "id", "-u") == "0"
