"""The run: rounds over all jobs until the time is used up, and what comes of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.suite import launching, workloads
from bench.suite.jobs import Bench, Contents, Files, Job
from bench.suite.requests import counter
from bench.suite.result import Row, Sample, rows
from bench.suite.sizes import Sizes
from bench.suite.subjects import Subject


class Progress:
    """One line that is written over on a terminal; a line for each job of a round elsewhere."""

    def __init__(self) -> None:
        self.begin = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def step(self, text: str) -> None:
        """What is being done now."""
        if self._terminal:
            print(f"\r\033[K{self._stamp()} {text}", end="", file=sys.stderr, flush=True)

    def job(self, text: str) -> None:
        """What was begun."""
        if not self._terminal:
            print(f"{self._stamp()} {text}", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def _stamp(self) -> str:
        return f"bench: {time.monotonic() - self.begin:4.0f} s"


def known() -> list[str]:
    """The names that a run may be asked for."""
    return [*workloads.known(), launching.NAME, *launching.WORKLOADS]


def run(
    area: Path, sizes: Sizes, names: list[str], placements: Sequence[str], subjects: Sequence[Subject]
) -> list[Row]:
    """Everything at least once, if there is time, then the rounds that fit in."""
    progress = Progress()
    with counter(area) as counting:
        bench = Bench(area, sizes, subjects, counting, progress.step)
        samples = _rounds(_jobs(bench, names, placements), sizes, progress)
    progress.end()
    return rows(samples)


def _jobs(bench: Bench, names: list[str], placements: Sequence[str]) -> list[Job]:
    contents = Contents(bench)
    found: list[Job] = []
    for group, report in workloads.chosen(names):
        found += [Files(bench, contents, group, report, placement) for placement in placements]
    wanted = launching.WORKLOADS if not names or launching.NAME in names else set(names) & set(launching.WORKLOADS)
    if wanted:
        found += [launching.Launching(bench, frozenset(wanted), placement) for placement in placements]
    return found


def _rounds(jobs: list[Job], sizes: Sizes, progress: Progress) -> list[Sample]:
    samples: list[Sample] = []
    took: dict[Job, float] = {}
    for number in range(sizes.most_rounds):
        for job in jobs:
            now = time.monotonic()
            left = sizes.budget_seconds - (now - progress.begin)
            if left < took.get(job, 0):
                if number == 0:
                    print(f"bench: no time is left for {job.name}, {job.placement}", file=sys.stderr)
                continue
            progress.job(f"round {number + 1}: {job.name}, {job.placement}")
            samples += job.round(number)
            took[job] = time.monotonic() - now
    return samples
