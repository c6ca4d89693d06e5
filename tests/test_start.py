"""What the caller's environment has for Python is not for our commands: however they are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.installed import CHECKOUT, COMMANDS, Installed
from tests.support.users import User

BROKEN = "raise SystemExit('read from the caller')\n"


def traps(folder: Path) -> dict[str, str]:
    """Modules that must not be read, in `folder`, and the variables that name them."""
    folder.mkdir(mode=0o755)
    for name in ("sitecustomize", "usercustomize", "json", "os", "launcher", "unionfs", "signal"):
        (folder / f"{name}.py").write_text(BROKEN)
    return {
        "PYTHONPATH": str(folder),
        "PYTHONHOME": "/nonexistent",
        "PYTHONSTARTUP": f"{folder}/json.py",
        "PYTHONINSPECT": "1",
        "PYTHONWARNINGS": "nonsense",
        "PYTHONIOENCODING": "nonsense",
        "PYTHONVERBOSE": "1",
        "PYTHONOPTIMIZE": "2",
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_python_is_started_apart_from_the_caller(user: User, name: str) -> None:
    variables = traps(user.temp / "traps")
    done = user.run([name, "--help"], env=variables, cwd=user.temp / "traps", check=True)
    assert (done.stderr, "Usage:" in done.stdout) == ("", True)


@pytest.mark.only_root  # the checkout is its owner's
@pytest.mark.parametrize("name", COMMANDS)
def test_script_setup_names_python_and_its_options(tmp_path: Path, name: str) -> None:
    program = CHECKOUT / ".venv/bin" / name
    assert program.read_text().startswith(f"#!/usr/bin/env -S --block-signal=INT {CHECKOUT}/.venv/bin/python3 ")
    environment = {**os.environ, **traps(tmp_path / "traps")}
    done = subprocess.run([program, "--help"], env=environment, cwd=tmp_path / "traps", check=True, capture_output=True)
    assert (done.stderr, b"Usage:" in done.stdout) == (b"", True)


@pytest.mark.only_root  # the layout is the same for everybody
@pytest.mark.parametrize("name", COMMANDS)
def test_a_prefix_and_a_link_to_it(root_user: User, installed: Installed, name: str) -> None:
    """As `pip install --prefix` or `--user` lays it out, called by another name; also as a virtual environment."""
    site = next(installed.base.glob(".venv/lib/python3*/site-packages"))
    prefix = root_user.temp / "prefix"
    packages = prefix / "lib" / site.parent.name / "site-packages"
    packages.mkdir(parents=True)
    dependencies = Path((site / "dependencies.pth").read_text().strip())
    for package in (site / "unionfs", site / "launcher", *dependencies.iterdir()):
        if not (packages / package.name).exists():
            (packages / package.name).symlink_to(package)
    (prefix / "bin").mkdir()
    shutil.copy(CHECKOUT / "bin" / name, prefix / "bin" / name)
    (root_user.temp / "link").symlink_to(f"prefix/bin/{name}")
    done = root_user.run([root_user.temp / "link", "--help"], env={"PYTHONHOME": "/nonexistent"}, check=True)
    assert "Usage:" in done.stdout
    (prefix / "pyvenv.cfg").write_bytes((installed.base / ".venv/pyvenv.cfg").read_bytes())
    (prefix / "bin/python3").symlink_to(installed.python)
    again = root_user.run([root_user.temp / "link", "--help"], env={"PYTHONHOME": "/nonexistent"}, check=True)
    assert again.stdout == done.stdout
