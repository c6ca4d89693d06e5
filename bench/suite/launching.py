"""Images and containers: launch, load and archive-start, of ufs and of podman (on fuse-overlayfs)."""

from __future__ import annotations

import os
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.suite import images
from bench.suite.area import empty
from bench.suite.jobs import Bench, turned
from bench.suite.placement import placed
from bench.suite.programs import Failed
from bench.suite.result import Sample
from bench.suite.subjects import BIN, missing

NAME = "launching"
WORKLOADS = ("launch", "load", "archive-start")
_LAUNCHES = 5
_IMAGE = "system"
# Machines that forbid raising limits, and hybrid cgroup mounts, which crun refuses, would stop podman.
_PODMAN_RUN = ("run", "--rm", "--network=host", "--cgroups=disabled", "--ulimit=nofile=1024:1024",
               "--ulimit=nproc=1024:1024")  # fmt: skip
_WITHOUT_HYBRID_CGROUPS = 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"'
_STORAGE = """\
[storage]
driver = "overlay"
graphroot = "{place}/graph"
runroot = "{place}/run"
[storage.options.overlay]
mount_program = "/usr/bin/fuse-overlayfs"
"""


@dataclass(frozen=True)
class Engine(ABC):
    """Commands with a store of their own at `place`. What they print must end with what is expected."""

    name: str
    place: Path

    def _run(self, command: list[str], environment: dict[str, str], expected: str = "") -> float:
        begin = time.perf_counter()
        done = subprocess.run(
            command, env={**os.environ, **environment}, cwd="/", text=True,
            stdin=subprocess.DEVNULL, capture_output=True, check=False,
        )  # fmt: skip
        seconds = time.perf_counter() - begin
        if done.returncode or not done.stdout.endswith(expected):
            raise Failed(f"{' '.join(command[-4:])} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
        return seconds

    def clear(self) -> None:
        """Back to an empty store."""
        empty(self.place)
        self.place.mkdir()

    @abstractmethod
    def load(self, archive: Path) -> float:
        """Seconds until the image is in the store."""

    @abstractmethod
    def launch(self) -> float:
        """Seconds of a container of it that does nothing."""

    @abstractmethod
    def start(self, archive: Path) -> float:
        """Seconds from the archive to the end of a command that says something."""


class Ufs(Engine):
    def load(self, archive: Path) -> float:
        return self._run([str(BIN / "ufs"), "load", "-q", str(archive)], self._environment)

    def launch(self) -> float:
        return self._run([str(BIN / "ufs-run"), "--rm", _IMAGE, "true"], self._environment)

    def start(self, archive: Path) -> float:
        return self._run([str(BIN / "ufs-run"), "--rm", str(archive), "echo", "ready"], self._environment, "ready\n")

    @property
    def _environment(self) -> dict[str, str]:
        return {"UFS_ROOT": str(self.place)}


class Podman(Engine):
    def load(self, archive: Path) -> float:
        return self._podman("load", "--quiet", "--input", str(archive))

    def launch(self) -> float:
        return self._podman(*_PODMAN_RUN, f"localhost/{_IMAGE}:latest", "true")

    def start(self, archive: Path) -> float:
        return self._podman(*_PODMAN_RUN, f"docker-archive:{archive}", "echo", "ready", expected="ready\n")

    def _podman(self, *words: str, expected: str = "") -> float:
        conf = self.place / "storage.conf"
        conf.write_text(_STORAGE.format(place=self.place))
        wrapper: tuple[str, ...] = ()
        if os.geteuid() == 0 and os.path.ismount("/sys/fs/cgroup/unified"):
            wrapper = ("unshare", "--mount", "sh", "-c", _WITHOUT_HYBRID_CGROUPS, "sh")
        environment = {"CONTAINERS_STORAGE_CONF": str(conf), "XDG_RUNTIME_DIR": str(self.place)}
        return self._run([*wrapper, "podman", *words], environment, expected)


class Launching:
    """The job. Its `round` loads into an empty store, launches from it some times, and starts from the archive."""

    def __init__(self, bench: Bench, report: frozenset[str], placement: str) -> None:
        self.name = NAME
        self.placement = placement
        self._bench = bench
        self._report = report
        self._archive = bench.area / "c" / "system.tar"
        self._engines: list[Engine] = [Ufs("ufs", bench.area / "ufs")]
        if not missing(("podman", "fuse-overlayfs")):
            self._engines.append(Podman("podman", bench.area / "podman"))

    def round(self, number: int) -> Iterator[Sample]:
        if missing(("busybox",)):
            self._bench.give_up("ufs", self.name, "busybox is not installed")
            self._engines.clear()
        elif not self._archive.exists():
            self._bench.say("making an image")
            images.of_a_system(self._bench.sizes, _IMAGE, self._archive)
        for engine in turned(self._engines, number):
            if (engine.name, self.name) not in self._bench.given_up:
                yield from self._on(engine)

    def _on(self, engine: Engine) -> Iterator[Sample]:
        try:
            with placed(self.placement):
                for workload, seconds in self._measure(engine):
                    if workload in self._report:
                        yield Sample(workload, self.placement, engine.name, seconds)
        except Failed as error:
            self._bench.give_up(engine.name, self.name, str(error))
        finally:
            empty(engine.place)

    def _measure(self, engine: Engine) -> Iterator[tuple[str, float]]:
        say = self._bench.say
        if self._report & {"load", "launch"}:
            say(f"{self.placement}: load by {engine.name}")
            engine.clear()
            yield "load", engine.load(self._archive)
        if "launch" in self._report:
            engine.launch()
            for _ in range(_LAUNCHES):
                say(f"{self.placement}: launch by {engine.name}")
                yield "launch", engine.launch()
        if "archive-start" in self._report:
            say(f"{self.placement}: archive-start by {engine.name}")
            engine.clear()
            yield "archive-start", engine.start(self._archive)
