"""What a command finds itself in: namespaces, mounts, devices, capabilities, filters."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from launcher.sandbox import capabilities
from tests.launcher.running import Runner
from tests.support.installed import Installed
from tests.support.processes import descendants, describe
from tests.support.users import PLAIN, ROOT, User
from tests.support.waiting import wait_until

CONTEXTS = ("user", "mnt", "pid", "ipc", "uts", "cgroup")


def test_namespaces(run: Runner) -> None:
    """All but the network's are its own, and the command is process 1."""
    names = [*CONTEXTS, "net"]
    inside = run.out("IMAGE", "sh", "-c", "for n in $0; do readlink /proc/self/ns/$n; done", " ".join(names))
    outside = [os.readlink(f"/proc/self/ns/{name}") for name in names]
    same = [name for name, one, other in zip(names, inside.splitlines(), outside, strict=True) if one == other]
    assert same == ["net"]
    assert run.out("IMAGE", "sh", "-c", "echo $$; ls -d /proc/[0-9]*").splitlines()[:2] == ["1", "/proc/1"]


def test_capabilities_and_privileges(run: Runner) -> None:
    status = dict(
        line.split(":\t", 1) for line in run.out("IMAGE", "cat", "/proc/self/status").splitlines() if ":\t" in line
    )
    docker = sum(1 << number for number in capabilities.DEFAULT)
    assert {name: int(status[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb")} == {
        "CapPrm": docker, "CapEff": docker, "CapBnd": docker, "CapInh": 0, "CapAmb": 0
    }  # fmt: skip
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_capabilities_are_added_and_dropped(run: Runner) -> None:
    def bounding(*options: str) -> int:
        return int(run.out(*options, "IMAGE", "sh", "-c", "grep CapBnd /proc/self/status").split()[1], 16)

    assert bounding("--cap-drop", "ALL") == 0
    assert bounding("--cap-drop", "all", "--cap-add", "cap_net_raw") == 1 << 13
    assert bounding("--cap-drop", "ALL", "--cap-add", "SYS_PTRACE,net_raw") == 1 << 19 | 1 << 13
    wrong = run("--cap-add", "FLY", "IMAGE", "true")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (125, 1)


def test_devices(run: Runner) -> None:
    script = """
        echo x > /dev/null; head -c3 /dev/zero | wc -c; head -c4 /dev/urandom | wc -c; ls /dev; ls /dev/pts
        touch /dev/shm/a && stat -c %a /dev/shm; readlink /dev/fd; readlink /dev/ptmx
    """
    out = run.out("IMAGE", "sh", "-c", script).split()
    assert out == [
        "3", "4", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
        "urandom", "zero", "ptmx", "1777", "/proc/self/fd", "pts/ptmx",
    ]  # fmt: skip


def test_mtab_is_a_link_where_the_image_has_none(run: Runner) -> None:
    assert run.out("IMAGE", "sh", "-c", "readlink /etc/mtab; grep -c ' / ' /etc/mtab") == "/proc/mounts\n1\n"
    run.kept("--name", "box", "IMAGE", "true", check=True)
    assert run.user.run(["ufs", "diff", "box"], check=True).stdout == ""


def test_device_nodes_cannot_be_made(run: Runner) -> None:
    done = run("IMAGE", "sh", "-c", "mknod /dev/sda b 8 0; test -b /dev/sda; echo $?")
    assert done.stdout == "1\n"


def test_kernel_files_are_protected(run: Runner) -> None:
    """Also for root, whose ids are the host's: nothing of /proc and /sys can be used to change the machine."""
    script = """
        for f in /proc/sys/kernel/hostname /proc/sys/vm/swappiness /proc/sysrq-trigger /sys/kernel/uevent_seqnum; do
            if [ -e $f ] && (echo 1 > $f) 2>/dev/null; then echo "$f was written"; fi
        done
        cat /proc/keys /proc/timer_list /proc/kcore 2>/dev/null | wc -c
        ls /sys/firmware /proc/acpi /proc/scsi 2>/dev/null
        mount -o remount,rw /proc/sys 2>/dev/null && echo remounted; umount /proc/keys 2>/dev/null && echo uncovered
    """
    out = run.out("IMAGE", "sh", "-c", script + "true").splitlines()
    assert [line for line in out if line and not line.endswith(":")] == ["0"]


def test_host_is_out_of_reach(run: Runner) -> None:
    """No descriptor of the host is left open, not even one that the caller had; no old root is mounted."""
    reader, writer = os.pipe()
    directory = os.open("/", os.O_RDONLY)
    try:
        out = run.out("IMAGE", "sh", "-c", "ls /proc/self/fd; grep -c ' / / ' /proc/self/mountinfo",
                      pass_fds=(reader, writer, directory))  # fmt: skip
    finally:
        for descriptor in (reader, writer, directory):
            os.close(descriptor)
    assert out.split() == ["0", "1", "2", "3", "1"]  # 3 is ls's own


def test_working_directory_cannot_be_a_descriptor(run: Runner) -> None:
    """CVE-2024-21626."""
    for number in range(3, 12):
        done = run("-w", f"/proc/self/fd/{number}", "IMAGE", "cat", "/proc/self/cwd/etc/os-release")
        assert "ufs-test" in done.stdout or done.returncode != 0


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_kernel_mount_points_may_not_be_links(run: Runner, name: str) -> None:
    """CVE-2019-16884. The link is made in the container's own layer by a volume's stead: a second root of links."""
    folder = run.user.temp / "root"
    for part in ("bin", "etc", "elsewhere"):
        (folder / part).mkdir(parents=True)
    (folder / name).symlink_to("elsewhere")
    layout = run.user.temp / "image"
    layer = run.user.temp / "layer.tar"
    run.user.own(folder)
    run.user.run(["tar", "-C", folder, "-cf", layer, "."], check=True)
    run.user.run(["umoci", "init", "--layout", layout], check=True)
    run.user.run(["umoci", "new", "--image", f"{layout}:x"], check=True)
    run.user.run(["umoci", "raw", "add-layer", "--image", f"{layout}:x", layer], check=True)
    done = run.user.run(["ufs-run", "--rm", layout, "true"])
    assert done.returncode == 125
    assert f"/{name}" in done.stderr
    assert done.stderr.count("\n") == 1


def test_nested_namespaces_and_mounts_are_denied(run: Runner) -> None:
    script = "unshare -U true; unshare -m true; mount -t tmpfs x /tmp; echo done"
    done = run("IMAGE", "sh", "-c", script)
    assert done.stdout == "done\n"
    assert done.stderr.count("not permitted") + done.stderr.count("permission denied") == 3


@pytest.mark.parametrize("place", ["volume", "layer"])
def test_containers_in_a_container(run: Runner, installed: Installed, place: str) -> None:
    """What is missing outside is said inside; with it all of it works, twice over, also in its own layer."""
    inner = f"{installed.command('ufs-run')} --rm"
    environment = ["-e", f"UFS_ROOT={run.user.temp}/store"]
    environment += ["-v", f"{run.user.temp}:{run.user.temp}"] if place == "volume" else []
    told = run("host", "sh", "-c", f"{inner} {run.image} true")
    assert (told.returncode, "start that one with --nested" in told.stderr, told.stderr.count("\n")) == (125, True, 1)
    script = "echo $$; touch /n && chown 0:0 /n && rm -r /root && mkdir /root && unshare -Ur id -u && ls /proc/1/exe"
    done = run("--nested", *environment, "host", "sh", "-c", f"{inner} --nested {run.image} sh -c '{script}'")
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["1", "0", "/proc/1/exe"], "")


def test_the_whiteout_device_is_made(run: Runner) -> None:
    """mknod c 0 0 needs no privilege; other devices cannot be made, with one id seem to be."""
    script = "cd /dev/shm; mknod w c 0 0 && stat -c '%F %t:%T' w; mknod n c 1 3; ls"
    assert run("IMAGE", "sh", "-c", script).stdout == "character special file 0:0\nw\n"


def test_ids(run: Runner) -> None:
    rows = [tuple(map(int, line.split())) for line in run.out("IMAGE", "cat", "/proc/self/uid_map").splitlines()]
    if run.user.kind == ROOT:
        assert rows == [tuple(map(int, line.split())) for line in Path("/proc/self/uid_map").read_text().splitlines()]
    else:
        assert rows[0] == (0, run.user.uid, 1)
        assert len(rows) == (1 if run.user.kind == PLAIN else 2)


def test_parent_death_signal(run: Runner) -> None:
    """Shown by the kill tests too; here the command sees that it survives a change of user."""
    assert run.out("-u", "somebody", "IMAGE", "sh", "-c", "id -un") == "somebody\n"


BIND = """
import os, socket, sys
def bound(address, family=socket.AF_INET, kind=socket.SOCK_STREAM):
    with socket.socket(family, kind) as made:
        try:
            made.bind(address)
            return made.getsockname()[:2] == address[:2] or "other"
        except OSError as error:
            return error.errno
low, any_port = ("127.0.7.81", 81), ("127.0.7.81", 0)
print(bound(low), bound(("::1", 81), socket.AF_INET6), bound(low, kind=socket.SOCK_DGRAM), bound(any_port))
if bound(low) == 13:
    sys.exit()
with socket.socket() as first:
    first.bind(low)
    first.listen()
    print(bound(low), bound(("192.0.2.1", 81)), bound("/tmp/s", socket.AF_UNIX))
os.setuid(1000)
print(bound(low))
"""


@pytest.mark.real_root
def test_low_ports_are_roots(root_user: User) -> None:
    """As outside, by whoever holds the capability inside; whatever else is bound is the kernel's business."""
    python = ["host", "/usr/bin/python3", "-c", BIND]
    done = root_user.run(["ufs-run", "--rm", *python], check=True)
    assert done.stdout.splitlines() == ["True True True other", "98 99 True", "13"]
    denied = root_user.run(["ufs-run", "--rm", "--cap-drop", "NET_BIND_SERVICE", *python])
    assert denied.stdout.startswith("13 13 13 ")


WHEN_TOLD = """
import os, socket, time
print("waits", flush=True)
while not os.path.exists("/go"):
    time.sleep(0.05)
socket.socket().bind(("127.0.7.82", 81))
print("bound")
"""


@pytest.mark.real_root
def test_low_ports_in_the_background(root_user: User) -> None:
    """Also when the supervisor has become a small program meanwhile."""
    command = ["ufs-run", "-d", "--name", "late", "host", "/usr/bin/python3", "-c", WHEN_TOLD]
    root_user.run(command, check=True)

    def is_small() -> bool:
        return any("supervisor/small.py" in describe(pid) for pid in descendants())

    wait_until(is_small, "the supervisor to be small")
    root_user.run(["ufs", "exec", "late", "touch", "/go"], check=True)
    assert root_user.run(["ufs", "wait", "late"], check=True).stdout == "0\n"
    assert root_user.run(["ufs", "logs", "late"], check=True).stdout == "waits\nbound\n"
