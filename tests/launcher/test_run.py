"""`ufs-run` as its users call it, in a small image by other tools: every kind of user."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.launcher.running import Runner
from tests.support.users import PLAIN, ROOT


def test_image_defaults_apply(run: Runner) -> None:
    """Cmd, Env and WorkingDir of the image; words replace Cmd."""
    assert run.out("IMAGE", input="echo $GREETING $PATH; pwd\n") == ""  # no -i: the shell reads /dev/null
    assert run.out("-i", "IMAGE", input="echo $GREETING $PATH; pwd\n") == "hello /usr/local/bin:/usr/bin:/bin\n/\n"
    assert run.out("IMAGE", "echo", "-n", "--rm", "x") == "--rm x"


def test_environment_options(run: Runner) -> None:
    lines = run.user.temp / "env"
    lines.write_text("# comment\nA=from file\nB=from file\n\nC\n")
    lines.chmod(0o644)
    found = run.out(
        "--env-file", os.fspath(lines), "-e", "B=given", "-eGREETING=", "-e", "MISSING", "--hostname", "box",
        "IMAGE", "env", env={"C": "passed on"},
    ).splitlines()  # fmt: skip
    assert sorted(found) == sorted(
        ["A=from file", "B=given", "C=passed on", "GREETING=", "HOSTNAME=box", "HOME=/root",
         "PATH=/usr/local/bin:/usr/bin:/bin"]
    )  # fmt: skip


def test_environment_files_are_read_as_docker_reads_them(run: Runner) -> None:
    """Blanks of values, blanks in names of -e, a byte order mark, Windows' line ends, no quotes, bytes of any kind."""
    lines = run.user.temp / "env"
    lines.write_bytes(b'\xef\xbb\xbfA=1  \r\n  B= "2"\t\n#C=3\n\nD  \nE=\xff\nEMPTY=\nGONE\n')
    run.user.own(lines)
    out = run.out(
        "--env-file", os.fspath(lines), "-e", "X Y=1", "-e", "LC_*", "IMAGE", "env", env={"D": "4", "LC_ALL": "C"}
    )  # fmt: skip
    found = [line for line in out.split("\n") if not line.startswith(("PATH=", "HOME=", "HOSTNAME=", "GREETING="))]
    assert sorted(found[:-1]) == ["A=1  ", 'B= "2"\t', "D=4", "E=\udcff", "EMPTY=", "LC_ALL=C", "X Y=1"]
    for wrong, says in (("A B=1", "line 1: 'A B' has blanks"), ("=1", "line 1: '=1' is not K=V")):
        lines.write_text(wrong)
        done = run("--env-file", os.fspath(lines), "IMAGE", "true")
        assert (done.returncode, says in done.stderr, done.stderr.count("\n")) == (125, True, 1)


def test_options_behind_the_image_are_the_commands(run: Runner) -> None:
    done = run("IMAGE", "-it", "sh")
    assert (done.returncode, done.stderr) == (
        127, "ufs: cannot run -it: this is no command; options of ufs-run go before IMAGE\n"
    )  # fmt: skip


def test_the_platform_is_checked(run: Runner) -> None:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    assert run.out("--platform", f"linux/{machine}", "IMAGE", "echo", "runs") == "runs\n"
    done = run("--platform", "linux/s390x", "IMAGE", "true")
    assert (done.returncode, "not linux/s390x" in done.stderr, done.stderr.count("\n")) == (125, True, 1)
    assert run.user.run(["ufs-run", "--rm", "--platform", "linux/s390x", "host", "true"]).returncode == 125
    assert run.containers() == []


def test_variables_for_python_reach_the_container_by_e_alone(run: Runner) -> None:
    caller = {"PYTHONHOME": "/nonexistent", "PYTHONPATH": "/nonexistent"}
    assert "PYTHON" not in run.out("IMAGE", "env", env=caller)
    shown = run.out("-e", "PYTHONHOME", "-e", "PYTHONPATH=/x", "IMAGE", "env", env=caller)
    assert {"PYTHONHOME=/nonexistent", "PYTHONPATH=/x"} <= set(shown.splitlines())


def test_hostname_and_generated_files(run: Runner) -> None:
    script = "hostname; cat /etc/hostname; grep -c localhost /etc/hosts; tail -n1 /etc/hosts"
    assert run.out("--hostname", "box-1", "IMAGE", "sh", "-c", script) == "box-1\nbox-1\n2\n127.0.1.1\tbox-1\n"
    assert run.out("-h", "a_b", "IMAGE", "hostname") == "a_b\n"
    assert run("-h", "a b", "IMAGE", "true").returncode == run("-h", "x" * 65, "IMAGE", "true").returncode == 125
    assert run.out("IMAGE", "cat", "/etc/resolv.conf") == Path("/etc/resolv.conf").read_text()


def test_working_directory_is_made(run: Runner) -> None:
    assert run.out("-w", "/a/new/one", "IMAGE", "pwd") == "/a/new/one\n"
    assert run.out("-w", "", "IMAGE", "pwd") == "/\n"
    done = run("-w", "relative", "IMAGE", "pwd")
    assert (done.returncode, done.stdout) == (125, "")
    assert "absolute" in done.stderr


@pytest.mark.parametrize(
    ("given", "ids", "groups", "home"),
    [
        ("somebody", (1000, 1000), "1000 2000", "/home/somebody"),
        ("1000", (1000, 1000), "1000 2000", "/home/somebody"),
        ("somebody:extra", (1000, 2000), "2000", "/home/somebody"),
        ("0:0", (0, 0), "0", "/root"),
        ("1234:77", (1234, 77), "77", "/"),
        ("1234", (1234, 0), "0", "/"),
    ],
)
def test_user(run: Runner, given: str, ids: tuple[int, int], groups: str, home: str) -> None:
    script = "id -u; id -g; id -G; echo $HOME; grep CapEff /proc/self/status"
    uid, gid, got_groups, got_home, caps = run.out("-u", given, "IMAGE", "sh", "-c", script).splitlines()
    assert ((int(uid), int(gid)), got_home) == (ids, home)
    if run.user.kind == PLAIN:
        groups = str(gid)  # there is no second group to map
    assert set(got_groups.split()) - {"65534"} == set(groups.split())
    assert (int(caps.split()[1], 16) == 0) == (ids[0] != 0)


@pytest.mark.parametrize("given", ["nobody-here", "0:nogroup-here", ":nogroup-here"])
def test_unknown_user(run: Runner, given: str) -> None:
    done = run("-u", given, "IMAGE", "true")
    assert done.returncode == 125
    assert done.stderr.count("\n") == 1
    assert run.containers() == []


def test_the_status_is_right_where_no_error_can_be_written(run: Runner) -> None:
    with open("/dev/full", "wb") as full:
        assert run.user.run(["ufs-run", "nowhere", "true"], stderr=full).returncode == 125


def test_entrypoint(run: Runner) -> None:
    assert run.out("--entrypoint", "echo", "IMAGE", "a", "b") == "a b\n"
    done = run("--entrypoint", "", "IMAGE")
    assert (done.returncode, done.stderr.count("\n")) == (125, 1)


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["sh", "-c", "exit 7"], 7, ""),
        (["sh", "-c", "exec 2>/dev/null; sh -c 'kill -TERM $$'; exit $?"], 143, ""),
        (["nosuchprogram"], 127, "nosuchprogram not found in PATH"),
        (["/nosuchprogram"], 127, "no such file /nosuchprogram"),
        (["/etc"], 126, "is a directory"),
        (["/etc/passwd"], 126, "permission denied"),
        (["/etc/passwd/x"], 127, "no such file"),
        ([""], 127, "is empty"),
    ],
)
def test_exit_status(run: Runner, words: list[str], status: int, says: str) -> None:
    done = run("IMAGE", *words)
    assert done.returncode == status
    assert says in done.stderr
    assert done.stderr.count("\n") == (1 if says else 0)
    assert run.containers() == []


def test_programs_that_cannot_run(run: Runner) -> None:
    """A missing interpreter is not a missing file, and what is no program is not executable."""
    folder = run.user.temp / "programs"
    folder.mkdir(mode=0o755)
    (folder / "script").write_text("#!/opt/none/perl -w\n")
    (folder / "data").write_bytes(b"\x01\x02")
    for name in ("script", "data"):
        (folder / name).chmod(0o755)
    volume = f"{folder}:/programs"
    run.user.own(folder)
    script = run("-v", volume, "IMAGE", "/programs/script")
    assert (script.returncode, "/opt/none/perl is not in the container" in script.stderr) == (127, True)
    data = run("-v", volume, "IMAGE", "/programs/data")
    assert (data.returncode, "not a program for this machine" in data.stderr) == (126, True)


def test_volumes(run: Runner) -> None:
    folder = run.user.temp / "shared"
    folder.mkdir()
    (folder / "file").write_text("from the host\n")
    run.user.own(folder)
    script = "cat /deep/in/here/file /one; echo more >> /one; echo new > /deep/in/here/new; echo no > /ro/x"
    done = run(
        "-v", "./shared:/deep/in/here", "-v", f"{folder}/file:/one", "-v", f"{folder}:/ro:ro",
        "IMAGE", "sh", "-c", script, cwd=run.user.temp,
    )  # fmt: skip
    assert done.stdout == "from the host\n" * 2
    assert "Read-only file system" in done.stderr
    assert (folder / "file").read_text() == "from the host\nmore\n"
    assert (folder / "new").stat().st_uid == run.user.uid


@pytest.mark.parametrize(
    ("volume", "says"),
    [
        ("/nosuch/place:/x", "does not exist"),
        ("no/name:/x", "with its path, as /data or ./data"),
        ("/tmp:relative", "absolute"),
        ("/tmp:/", "other than /"),
        ("/tmp:/x:rx", "'rx'"),
        ("/tmp:/x:ro:rw", "SRC:DST"),
        ("/tmp:/proc/sys", "/proc"),
        ("/tmp:/etc/passwd", "not a directory"),
        ("/etc/passwd:/etc", "is a directory"),
    ],
)
def test_wrong_volumes(run: Runner, volume: str, says: str) -> None:
    done = run("-v", volume, "IMAGE", "true")
    assert done.returncode == 125
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert run.containers() == []


def test_read_only(run: Runner) -> None:
    script = "touch /x /etc/x; touch /tmp/a /run/a /var/tmp/a && echo fine"
    done = run("--read-only", "IMAGE", "sh", "-c", script)
    assert done.stdout == "fine\n"
    assert done.stderr.count("Read-only file system") == 2


def test_names(run: Runner) -> None:
    run.kept("--name", "first", "IMAGE", "true", check=True)
    again = run.kept("--name", "first", "IMAGE", "true")
    assert (again.returncode, "is taken by container" in again.stderr) == (125, True)
    bad = run.kept("--name", "../x", "IMAGE", "true")
    assert (bad.returncode, bad.stderr.count("\n")) == (125, 1)
    assert len(run.containers()) == 1


def test_records_of_a_container(run: Runner) -> None:
    """config.json, state.json, and its layer stay until `ufs rm`."""
    assert run.kept("--name", "kept", "-e", "A=1", "IMAGE", "sh", "-c", "echo x > /new; exit 3").returncode == 3
    (directory,) = run.containers()
    config = json.loads((directory / "config.json").read_text())
    state = json.loads((directory / "state.json").read_text())
    assert (config["name"], config["id"], config["environment"]["A"]) == ("kept", directory.name, "1")
    assert (state["state"], state["status"], state["error"]) == ("exited", 3, None)
    assert (directory / "upper/new").read_text() == "x\n"
    assert not (directory / "work").exists()


def test_one_id_pretends(run: Runner) -> None:
    """chown, mknod and setgroups work where ids are mapped, and seem to where only one is."""
    script = "touch /x; chown 5:6 /x && mkdir /d && chgrp -R 9 /d && stat -c %u:%g /x"
    shown = run.out("IMAGE", "sh", "-c", script)
    assert shown == ("0:0\n" if run.user.kind == PLAIN else "5:6\n")


def test_usage(run: Runner) -> None:
    assert "Examples:" in run.user.run(["ufs-run", "--help"], check=True).stdout
    for words in ([], ["--nosuch", "x"], ["--engine", "other", "host", "true"], ["-e"]):
        done = run.user.run(["ufs-run", *words])
        assert done.returncode == 125
        assert done.stderr.startswith("ufs: ")
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("engine", ["direct", "pyfuse3"])
def test_engines(run: Runner, engine: str) -> None:
    script = "echo a > /f && mv /f /g && ln /g /h && cat /h && rm -r /root && ls /root"
    done = run("--engine", engine, "IMAGE", "sh", "-c", script)
    assert (done.returncode, done.stdout) == (1, "a\n")


def test_host(run: Runner) -> None:
    """The machine's own root, copy-on-write: changed inside, untouched outside."""
    script = "echo changed > /etc/of-ufs-test; rm /etc/os-release; cat /etc/of-ufs-test; ls /etc/os-release"
    if run.user.kind != ROOT:  # the host's /etc belongs to nobody here
        mine = run.user.temp / "file"
        mine.write_text("before\n")
        run.user.own(mine)
        done = run("host", "sh", "-c", f"echo changed > {mine}; cat {mine}; ls {run.user.store}/containers")
        assert (done.stdout, mine.read_text()) == ("changed\n", "before\n")
        assert "No such file" in done.stderr
        return
    done = run("host", "sh", "-c", script)
    assert done.stdout == "changed\n"
    assert Path("/etc/os-release").exists()
    assert not Path("/etc/of-ufs-test").exists()
