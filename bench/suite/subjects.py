"""The file systems that are compared: each mounts the same lower directories with an upper of its own.

Servers stay in the foreground, as children of the bench, so that their CPU time and memory are known and none is
left behind. They are in a session of their own: Ctrl-C is for the bench, which then unmounts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

_START_SECONDS = 30.0
BIN = Path(sys.executable).parent


class Absent(Exception):
    """A subject cannot be mounted here; the message says why."""


@dataclass(frozen=True)
class Place:
    """What to mount where. Paths are relative to `area`, so that the options of 128 layers fit into a page."""

    area: Path
    layers: Sequence[str]
    base: str
    writes: bool
    image: str = ""
    """Name of the same content as an image in the store $UFS_ROOT, where there is one."""

    @property
    def merged(self) -> Path:
        return self.area / self.base / "m"


class Mounted:
    """A mount; of a plain directory, too, which has no server."""

    def __init__(self, root: Path, server: subprocess.Popen[bytes] | int | None = None) -> None:
        self.root = root
        self._server = server
        self.pid = server.pid if isinstance(server, subprocess.Popen) else server or 0
        device = os.stat(root).st_dev
        self.connection = os.minor(device) if self.pid else None

    def cpu_seconds(self) -> float | None:
        """CPU time of the server so far, in steps of a clock tick; proc_pid_stat(5)."""
        if not self.pid:
            return None
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def reset_peak(self) -> None:
        """Let the peak begin anew with what the server has now; proc_pid_clear_refs(5), 5."""
        if self.pid:
            Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def peak_kib(self) -> int | None:
        """The most memory the server had resident since; VmHWM of proc_pid_status(5)."""
        if not self.pid:
            return None
        with open(f"/proc/{self.pid}/status", encoding="utf-8", errors="replace") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:"))


@dataclass(frozen=True)
class Subject(ABC):
    """`name` is how it is called in results. `mount` is a context manager."""

    name: str

    def takes(self, place: Place) -> bool:
        """Whether it has this content at all."""
        return True

    def prepare(self, place: Place) -> None:
        """Before the first mount of a place."""
        for name in ("u", "w", "m"):
            (place.area / place.base / name).mkdir()

    @abstractmethod
    def mount(self, place: Place) -> AbstractContextManager[Mounted]:
        """Mounted inside. Raises `Absent`."""


@dataclass(frozen=True)
class Directory(Subject):
    """A plain directory with a copy of the content, or the content itself where nothing is written to it."""

    def prepare(self, place: Place) -> None:
        if place.writes or len(place.layers) > 1:
            place.merged.mkdir()
            for layer in reversed(place.layers):
                subprocess.run(["cp", "-a", f"{place.area / layer}/.", place.merged], check=True)
        else:
            place.merged.symlink_to(place.area / place.layers[0])

    @contextmanager
    def mount(self, place: Place) -> Iterator[Mounted]:
        yield Mounted(place.merged.resolve())


@dataclass(frozen=True)
class Overlay(Subject):
    """The kernel's overlayfs, where this user may mount it."""

    @contextmanager
    def mount(self, place: Place) -> Iterator[Mounted]:
        command: list[str | Path] = ["mount", "-t", "overlay", "overlay", "-o", _overlay_options(place), place.merged]
        done = subprocess.run(command, cwd=place.area, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise Absent(" ".join(done.stderr.split()) or "mount(8) failed")
        try:
            yield Mounted(place.merged)
        finally:
            unmount(place.merged)


def _overlay_options(place: Place) -> str:
    return f"lowerdir={':'.join(place.layers)},upperdir={place.base}/u,workdir={place.base}/w"


@dataclass(frozen=True)
class Server(Subject):
    """A server that stays in the foreground; `command` with {overlay}, {branches} and {merged} filled in."""

    command: tuple[str, ...]

    @contextmanager
    def mount(self, place: Place) -> Iterator[Mounted]:
        branches = ":".join([f"{place.base}/u=RW", *(f"{layer}=RO" for layer in place.layers)])
        words = {"overlay": _overlay_options(place), "branches": branches, "merged": str(place.merged)}
        log = place.area / place.base / "log"
        with open(log, "ab") as said:
            try:
                server = subprocess.Popen(
                    [word.format(**words) for word in self.command], cwd=place.area,
                    stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
                )  # fmt: skip
            except FileNotFoundError as error:
                raise Absent(f"{error.filename} is not installed") from None
        try:
            _wait_until_mounted(place, server, log)
            yield Mounted(place.merged, server)
        finally:
            if os.path.ismount(place.merged):
                unmount(place.merged)
            _end(server)


@dataclass(frozen=True)
class Image(Subject):
    """`ufs mount` of the content as an image. Its server is in the background and is adopted by the bench."""

    def takes(self, place: Place) -> bool:
        return bool(place.image)

    @contextmanager
    def mount(self, place: Place) -> Iterator[Mounted]:
        before = _children()
        environment = {**os.environ, "UFS_ROOT": str(place.area / "store")}
        command: list[str | Path] = [BIN / "ufs", "mount", place.image, place.merged]
        done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise Absent(" ".join(done.stderr.split()))
        try:
            (server,) = _children() - before
            yield Mounted(place.merged, server)
        finally:
            unmount(place.merged)
            for child in _children() - before:
                os.waitpid(child, 0)


def _children() -> set[int]:
    """Ours, with those adopted; needs CONFIG_PROC_CHILDREN, which checkpoint/restore selects."""
    return {int(word) for word in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def _wait_until_mounted(place: Place, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not os.path.ismount(place.merged):
        if server.poll() is not None or time.monotonic() > deadline:
            said = " ".join(log.read_text(errors="replace").split())
            raise Absent(said[-300:] or f"it ended with {server.returncode} and said nothing")
        time.sleep(0.005)
    os.listdir(place.merged)  # it answers


def _end(server: subprocess.Popen[bytes]) -> None:
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
        print(f"bench: {server.args!r} did not end after unmounting and was killed", file=sys.stderr)


def unmount(target: Path) -> None:
    """As whoever this is; lazily where somebody still uses it."""
    command = ["umount"] if os.geteuid() == 0 else ["fusermount3", "-u"]
    if subprocess.run([*command, target], stderr=subprocess.DEVNULL, check=False).returncode:
        lazy = ["umount", "--lazy"] if os.geteuid() == 0 else ["fusermount3", "-u", "-z"]
        subprocess.run([*lazy, target], check=True)


def all_subjects() -> list[Subject]:
    """In the order of the table."""
    ufs = (str(BIN / "ufs-mount"), "-f", "-o", "{overlay}", "{merged}")
    return [
        Directory("directory"),
        Overlay("overlayfs"),
        Server("fuse-overlayfs", ("fuse-overlayfs", "-f", "-o", "{overlay}", "{merged}")),
        Server("unionfs-fuse", ("unionfs", "-f", "-o", "cow,hide_meta_files", "{branches}", "{merged}")),
        Server("ufs", ufs),
        Server("ufs-pyfuse3", (*ufs, "--engine", "pyfuse3")),
        Image("ufs-image"),
    ]


def missing(programs: Sequence[str]) -> list[str]:
    """Those that are not installed."""
    return [name for name in programs if shutil.which(name) is None]
