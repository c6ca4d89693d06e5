"""`ufs ps`, `ufs rm`, `ufs diff`."""

from __future__ import annotations

import pytest

from tests.launcher.running import Runner


def test_diff(run: Runner) -> None:
    script = """
        echo new > /new; mkdir -p /dir/deep; echo x > /dir/deep/file; rm /bin/wget; echo more >> /etc/passwd
        mv /bin/vi /bin/editor; rm -r /home/somebody; mkdir /home/somebody; touch /home/somebody/inside; chmod 700 /usr
    """
    run.kept("--name", "changed", "IMAGE", "sh", "-c", script, check=True)
    lines = run.user.run(["ufs", "diff", "changed"], check=True).stdout.splitlines()
    assert sorted(lines, key=lambda line: line[2:]) == [
        "C /bin", "A /bin/editor", "D /bin/vi", "D /bin/wget", "A /dir", "A /dir/deep", "A /dir/deep/file", "C /etc",
        "C /etc/passwd", "C /home", "C /home/somebody", "A /home/somebody/inside", "A /new", "C /usr",
    ]  # fmt: skip


def test_diff_of_a_renamed_directory(run: Runner) -> None:
    """Renaming copies nothing; shown is what one sees: gone there, come here."""
    run.kept("--name", "moved", "IMAGE", "sh", "-c", "mv /etc /etc2; rm /etc2/group; echo x > /etc2/new", check=True)
    lines = run.user.run(["ufs", "diff", "moved"], check=True).stdout.splitlines()
    assert "D /etc" in lines
    assert {"A /etc2", "A /etc2/passwd", "A /etc2/new", "A /etc2/os-release"} <= set(lines)
    assert "A /etc2/group" not in lines


@pytest.mark.parametrize(
    "options", [[], ["-t"], ["--read-only"], ["-v", "/tmp:/new/deep/dir", "-v", "/etc/passwd:/etc/one/file"]]
)
def test_unchanged(run: Runner, options: list[str]) -> None:
    """Places to mount on are not changes, nor are the directories that have them and keep their times."""
    run.kept("--name", "same", *options, "IMAGE", "true", check=True)
    assert run.user.run(["ufs", "diff", "same"], check=True).stdout == ""


@pytest.mark.parametrize(
    ("script", "shown"),
    [
        ("chmod 700 /etc", "C /etc\n"),
        ("touch /etc/x; rm /etc/x", "C /etc\n"),
        ("touch /etc/one/x", "C /etc\nA /etc/one\nA /etc/one/x\n"),
        ("mkdir /new/x", "A /new\nA /new/x\n"),
    ],
)
def test_what_is_done_beside_a_mount_point_is_a_change(run: Runner, script: str, shown: str) -> None:
    volumes = ["-v", "/tmp:/new/deep/dir", "-v", "/etc/passwd:/etc/one/file"]
    run.kept("--name", "near", *volumes, "IMAGE", "sh", "-c", script, check=True)
    assert run.user.run(["ufs", "diff", "near"], check=True).stdout == shown


def test_names_with_control_characters_are_escaped(run: Runner) -> None:
    run.kept("--name", "odd", "IMAGE", "sh", "-c", "touch \"/$(printf 'a\\033[31mb\\nc')\"", check=True)
    assert "A /a\\x1b[31mb\\x0ac\n" in run.user.run(["ufs", "diff", "odd"], check=True).stdout


def test_ps_and_rm(run: Runner) -> None:
    assert run.kept("--name", "one", "IMAGE", "sh", "-c", "exit 3").returncode == 3
    run.kept("--name", "two", "IMAGE", "true", check=True)
    assert run.user.run(["ufs", "ps"], check=True).stdout.count("\n") == 1
    lines = run.user.run(["ufs", "ps", "--all"], check=True).stdout.splitlines()
    assert lines[0].split("   ")[0] == "CONTAINER ID"
    assert [line.split()[-1] for line in lines[1:]] == ["two", "one"]
    assert "Exited (3)" in lines[2]
    identity = lines[2].split()[0]
    assert run.user.run(["ufs", "rm", identity, "nosuch"]).returncode == 1
    assert len(run.containers()) == 1
    run.user.run(["ufs", "rm", "two"], check=True)
    assert run.containers() == []


def test_rm_removes_what_is_hard_to_remove(run: Runner) -> None:
    """Other owners, no permissions, and deeper than a path may be long."""
    script = """
        mkdir -p /deep && cd /deep && name=$(printf '%0200d' 1); i=0
        while [ $i -lt 60 ]; do mkdir $name; cd $name; i=$((i+1)); done
        cd /; mkdir /shut; touch /shut/file; chown -R 7:7 /shut; chmod 0 /shut
    """
    run.kept("--name", "hard", "IMAGE", "sh", "-c", script, check=True)
    run.user.run(["ufs", "rm", "hard"], check=True)
    assert run.containers() == []


def test_a_container_whose_output_cannot_be_written_ends_and_is_recorded(run: Runner) -> None:
    with open("/dev/full", "wb") as full:
        done = run.kept("--name", "loud", "-t", "IMAGE", "sh", "-c", "while :; do echo word; done", stdout=full)
    assert done.returncode == 125
    assert done.stderr == "ufs: standard output: No space left on device; the container was ended\n"
    assert "Exited" in run.user.run(["ufs", "ps", "--all"], check=True).stdout
