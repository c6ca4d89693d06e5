"""script/demo and script/setup, in a checkout that is set up."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.installed import CHECKOUT, Installed
from tests.support.users import User


def test_the_demo_shows_changes_and_leaves_the_host_alone(user: User, installed: Installed) -> None:
    """What the README promises, for every kind of user; nothing stays behind in the home directory."""
    before = sorted(os.listdir(user.home))
    done = user.run([installed.base / "script" / "demo"], check=True)
    for line in (
        "letter.txt: rewritten inside",
        "new.txt: from inside",
        "letter.txt: the original text",
        "precious.txt: keep me",
    ):
        assert f"    {line}\n" in done.stdout, done
    kinds = {
        line.split()[0]: line for line in done.stdout.splitlines() if line.startswith("    ") and "/ufs-demo" in line
    }
    assert kinds["A"].endswith("/new.txt")
    assert kinds["C"].endswith("/letter.txt")
    assert kinds["D"].endswith("/precious.txt")
    assert sorted(os.listdir(user.home)) == before
    assert os.listdir(user.temp) == []


def test_the_demo_is_quiet_when_nothing_is_missing(user: User, installed: Installed) -> None:
    done = user.run([installed.base / "script" / "setup", "demo"], check=True)
    assert done.stdout + done.stderr == ""


def test_setup_names_what_it_cannot_install(tmp_path: Path) -> None:
    """Without root and without the packages it stops with the line to run as root."""
    script = tmp_path / "script"
    script.mkdir()
    shutil.copy(CHECKOUT / "script" / "setup", script)
    shutil.copy(CHECKOUT / "pyproject.toml", tmp_path)
    shutil.copytree(CHECKOUT / "bin", tmp_path / "bin")
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "cat", "sha256sum", "id", "env"):
        (tools / name).symlink_to(Path("/usr/bin") / name)
    (tools / "apt-get").symlink_to("/bin/false")
    (tools / "sudo").symlink_to("/bin/false")
    # The script looks in the system's directories as well, so it is told of others.
    text = (script / "setup").read_text()
    assert "PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin\n" in text
    assert "((EUID != 0))" in text
    text = text.replace("PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin\n", "").replace("((EUID != 0))", "true")
    (script / "setup").write_text(text)
    done = subprocess.run(
        ["bash", script / "setup", "demo"], env={"PATH": str(tools)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    *_, last = done.stderr.splitlines()
    assert last.startswith("setup: missing system packages; as root run: apt-get install")
    assert "fuse3 uidmap" in last


@pytest.mark.parametrize("name", ["setup", "demo", "test", "bench"])
def test_scripts_are_executable_bash(name: str) -> None:
    path = CHECKOUT / "script" / name
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", path], check=True)
