"""The three kinds of user: root, one with a range in /etc/subuid, and one without."""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

ROOT, SUBUID, PLAIN = "root", "subuid", "plain"
ACCOUNTS = {ROOT: "root", SUBUID: "ufs-sub", PLAIN: "ufs-plain"}
RANGE = 65536
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
RANGE_FILES = (Path("/etc/subuid"), Path("/etc/subgid"))


def kinds() -> list[str]:
    """The kinds that this process may act as: all of them as root, else only its own."""
    if os.geteuid() == 0:
        return [ROOT, SUBUID, PLAIN]
    return [SUBUID if _has_ranges(getpass.getuser()) else PLAIN]


def is_real_root() -> bool:
    """Whether this process is root of the initial user namespace, where capabilities count for everything."""
    with open("/proc/self/uid_map") as file:
        return os.geteuid() == 0 and file.read().split() == ["0", "0", "4294967295"]


def account(kind: str) -> pwd.struct_passwd:
    """The passwd entry that stands for a kind; as root made first where it is missing."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.getuid())
    name = ACCOUNTS[kind]
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        subprocess.run(["useradd", "--no-create-home", "--user-group", "--shell", "/bin/sh", name], check=True)
        entry = pwd.getpwnam(name)
    if kind == SUBUID and not _has_ranges(name):
        _add_ranges(name)
    if kind == PLAIN:
        _remove_ranges(name)
    return entry


def _has_ranges(name: str) -> bool:
    return all(any(line.startswith(f"{name}:") for line in _lines(path)) for path in RANGE_FILES)


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _add_ranges(name: str) -> None:
    """Append a range behind all that are there."""
    for path in RANGE_FILES:
        lines = [line for line in _lines(path) if not line.startswith(f"{name}:")]
        ends = [int(first) + int(count) for _, first, count in (line.split(":") for line in lines if line)]
        lines.append(f"{name}:{max([100000, *ends])}:{RANGE}")
        path.write_text("\n".join(lines) + "\n")


def _remove_ranges(name: str) -> None:
    for path in RANGE_FILES:
        lines = _lines(path)
        kept = [line for line in lines if not line.startswith(f"{name}:")]
        if kept != lines:
            path.write_text("".join(f"{line}\n" for line in kept))


@dataclass
class User:
    """Somebody who runs our commands, with a home directory and an environment of their own."""

    kind: str
    name: str
    uid: int
    gid: int
    home: Path
    bin: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def store(self) -> Path:
        """Where this user's `ufs` keeps its images."""
        return Path(self.env["XDG_DATA_HOME"]) / "ufs"

    @property
    def temp(self) -> Path:
        """A directory for the test's own files, the user's $TMPDIR."""
        return self.home / "tmp"

    def command(self, argv: Sequence[str | os.PathLike[str]]) -> list[str]:
        """`argv` as strings, with our own commands as the paths of the installed copy."""
        words = [os.fspath(word) for word in argv]
        ours = self.bin / words[0]
        return [str(ours), *words[1:]] if "/" not in words[0] and ours.exists() else words

    def popen(
        self, argv: Sequence[str | os.PathLike[str]], *, env: Mapping[str, str] | None = None, **kw: Any
    ) -> subprocess.Popen[Any]:
        """Start a command as this user; keywords as of `subprocess.Popen`, `env` adds to the user's."""
        kw.setdefault("stdin", subprocess.DEVNULL)
        kw.setdefault("cwd", self.home)
        if os.geteuid() == 0:
            kw.update(user=self.uid, group=self.gid, extra_groups=os.getgrouplist(self.name, self.gid))
        return subprocess.Popen(self.command(argv), env={**self.env, **(env or {})}, umask=0o022, **kw)

    def run(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        check: bool = False,
        input: str | bytes | None = None,
        timeout: float = 120,
        text: bool = True,
        stdout: int | IO[Any] = subprocess.PIPE,
        stderr: int | IO[Any] = subprocess.PIPE,
        **kw: Any,
    ) -> subprocess.CompletedProcess[Any]:
        """Run a command as this user to its end. A traceback on its stderr is a failure of the test."""
        if text:
            kw.update(encoding="utf-8", errors="surrogateescape")
        if input is not None:
            kw["stdin"] = subprocess.PIPE
        with self.popen(argv, stdout=stdout, stderr=stderr, **kw) as process:
            try:
                out, err = process.communicate(input, timeout=timeout)
            except BaseException:
                process.kill()
                raise
        message = err.decode(errors="replace") if isinstance(err, bytes) else err
        assert "Traceback (most recent call last)" not in (message or ""), message
        if check and process.returncode != 0:
            raise AssertionError(f"{process.args!r} ended with {process.returncode}:\n{out!s}\n{message}")
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def own(self, path: Path) -> Path:
        """Give a path, with all below it, to this user."""
        if os.geteuid() == 0:
            subprocess.run(["chown", "-hR", f"{self.uid}:{self.gid}", path], check=True)
        return path


_NO_INTERNET = """\
[[registry]]
location = "docker.io"
blocked = true
"""
"""What a user says of registries: no test asks the internet for an image that the store lacks."""


def make_user(kind: str, home: Path, bin: Path) -> User:
    """A user of this kind with `home` (made here) and the commands of `bin` in front of the system's."""
    entry = account(kind)
    folders = [home / name for name in ("tmp", "run", ".local/share", ".config", ".cache")]
    for folder in folders:
        folder.mkdir(mode=0o700, parents=True)
    home.chmod(0o700)
    registries = home / ".config/containers/registries.conf"
    registries.parent.mkdir()
    registries.write_text(_NO_INTERNET)
    env = {
        "HOME": str(home),
        "USER": entry.pw_name,
        "LOGNAME": entry.pw_name,
        "SHELL": "/bin/sh",
        "LANG": "C.UTF-8",
        "TERM": "xterm",
        "PATH": f"{bin}:{SYSTEM_PATH}",
        "TMPDIR": str(home / "tmp"),
        "XDG_RUNTIME_DIR": str(home / "run"),
        "XDG_DATA_HOME": str(home / ".local/share"),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_CACHE_HOME": str(home / ".cache"),
    }
    user = User(kind, entry.pw_name, entry.pw_uid, entry.pw_gid, home, bin, env)
    user.own(home)
    return user


def remove_home(user: User) -> None:
    """Delete a home; files of subordinate ids fall to their owner's namespace when this is not root."""
    if os.geteuid() == 0:
        shutil.rmtree(user.home)
        return
    inside = ["--map-root-user", "--map-auto"] if user.kind == SUBUID else ["--map-root-user"]
    subprocess.run(["unshare", "--user", *inside, "rm", "-rf", "--", user.home], check=True)
