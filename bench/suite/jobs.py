"""A job is a group of workloads at one placement; one round of it takes every subject in turn."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Protocol, TypeVar

from bench.suite import images, subjects, workloads
from bench.suite.area import empty
from bench.suite.placement import placed
from bench.suite.programs import Failed, environment, timed
from bench.suite.requests import Counter
from bench.suite.result import Sample
from bench.suite.sizes import Sizes

_NUMBERS = count()
_T = TypeVar("_T")
Say = Callable[[str], None]


@dataclass
class Bench:
    """What all jobs share."""

    area: Path
    sizes: Sizes
    subjects: Sequence[subjects.Subject]
    counter: Counter
    say: Say
    given_up: set[tuple[str, str]] = field(default_factory=set)
    """Subject and group, or subject alone with an empty group: did not mount, or a workload failed on it."""

    def give_up(self, subject: str, group: str, why: str) -> None:
        self.given_up.add((subject, group))
        print(f"bench: {subject}{' at ' * bool(group)}{group}: {why}; left out", file=sys.stderr)


class Job(Protocol):
    """`name` and `placement` are for the progress."""

    name: str
    placement: str

    def round(self, number: int) -> Iterator[Sample]:
        """All subjects once, in an order that depends on the number."""


def turned(things: Sequence[_T], number: int) -> list[_T]:
    """Nobody is always the first, and so nobody always comes after the same one."""
    start = number % len(things) if things else 0
    return [*things[start:], *things[:start]]


class Contents:
    """The lower directories of each group, and the images of them. Made once, when first asked for."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._made: dict[str, tuple[list[str], str]] = {}

    def of(self, group: workloads.Group) -> tuple[list[str], str]:
        """Layers relative to the area, and the image's name, which is empty for a group that writes."""
        key = group.content
        if key not in self._made:
            self._bench.say(f"making content: {key}")
            base = self._bench.area / "c" / key
            base.mkdir()
            layers = group.make(base, self._bench.sizes)
            image = "" if group.writes else self._load(key, layers)
            self._made[key] = [str(layer.relative_to(self._bench.area)) for layer in layers], image
        return self._made[key]

    def _load(self, key: str, layers: list[Path]) -> str:
        archive = self._bench.area / "tmp" / f"{key}.tar"
        images.of_directories(layers, key, archive)
        store = {**os.environ, "UFS_ROOT": str(self._bench.area / "store")}
        subprocess.run([subjects.BIN / "ufs", "load", "-q", archive], env=store, check=True, stdout=subprocess.DEVNULL)
        archive.unlink()
        return key


class Files:
    """A group of `workloads.GROUPS`."""

    def __init__(
        self, bench: Bench, contents: Contents, group: workloads.Group, report: frozenset[str], placement: str
    ) -> None:
        self.name = group.name
        self.placement = placement
        self._bench = bench
        self._contents = contents
        self._group = group
        self._report = report
        self._steps = [step for step in workloads.wanted(group, report) if not subjects.missing(step.programs)]

    def round(self, number: int) -> Iterator[Sample]:
        for subject in turned(self._bench.subjects, number):
            if not self._bench.given_up & {(subject.name, ""), (subject.name, self.name)}:
                yield from self._on(subject)

    def _on(self, subject: subjects.Subject) -> Iterator[Sample]:
        bench = self._bench
        layers, image = self._contents.of(self._group)
        base = f"r/{next(_NUMBERS)}"
        place = subjects.Place(bench.area, layers, base, self._group.writes, image)
        if not subject.takes(place):
            return
        (bench.area / base).mkdir()
        try:
            subject.prepare(place)
            with placed(self.placement):
                for mount_steps in _mounts(self._steps):
                    with subject.mount(place) as mounted:
                        for step in mount_steps:
                            bench.say(f"{self.placement}: {step.name} on {subject.name}")
                            sample = self._step(step, subject.name, mounted)
                            if step.name in self._report:
                                yield sample
        except subjects.Absent as error:
            bench.give_up(subject.name, self.name, str(error))
        except Failed as error:
            bench.give_up(subject.name, self.name, str(error))
        finally:
            empty(bench.area / base)

    def _step(self, step: workloads.Step, subject: str, mounted: subjects.Mounted) -> Sample:
        bench = self._bench
        variables = {**environment(bench.area), "CONTENT": str(bench.area / "c" / self._group.content)}
        if step.prepare:
            timed(workloads.filled(step.prepare, bench.sizes), mounted.root, variables)
        mounted.reset_peak()
        before = mounted.cpu_seconds()
        bench.counter.begin(mounted.connection)
        try:
            seconds = timed(workloads.filled(step.command, bench.sizes), mounted.root, variables)
        except Failed as error:
            raise Failed(f"{step.name} {error}") from None
        finally:
            requests = bench.counter.end(mounted.connection)
        after = mounted.cpu_seconds()
        cpu = after - before if after is not None and before is not None else None
        return Sample(step.name, self.placement, subject, seconds, requests, cpu, mounted.peak_kib())


def _mounts(steps: Sequence[workloads.Step]) -> Iterator[list[workloads.Step]]:
    """The steps in pieces, each of which needs a mount of its own."""
    piece: list[workloads.Step] = []
    for step in steps:
        if step.fresh and piece:
            yield piece
            piece = []
        piece.append(step)
    if piece:
        yield piece
