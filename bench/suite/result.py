"""What is measured, and what a run of many rounds makes of it."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypedDict


@dataclass(frozen=True)
class Sample:
    """One timing. `cpu` is of the server, in seconds; `peak` its most resident memory, in KiB; None without one."""

    workload: str
    placement: str
    subject: str
    seconds: float
    requests: int | None = None
    cpu: float | None = None
    peak_kib: int | None = None


class Row(TypedDict):
    """A line of the JSON. Medians of `runs` samples; `peak` is the largest, in MB of 1,000,000 bytes."""

    workload: str
    placement: str
    subject: str
    seconds: float
    runs: int
    requests: int | None
    cpu: float | None
    peak: float | None


def rows(samples: Iterable[Sample]) -> list[Row]:
    """In the order in which workloads and subjects first came."""
    grouped: dict[tuple[str, str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        grouped[sample.workload, sample.placement, sample.subject].append(sample)
    return [_row(found) for found in grouped.values()]


def _row(found: list[Sample]) -> Row:
    first = found[0]
    requests = [sample.requests for sample in found if sample.requests is not None]
    cpu = [sample.cpu for sample in found if sample.cpu is not None]
    peaks = [sample.peak_kib for sample in found if sample.peak_kib is not None]
    return {
        "workload": first.workload,
        "placement": first.placement,
        "subject": first.subject,
        "seconds": round(statistics.median(sample.seconds for sample in found), 4),
        "runs": len(found),
        "requests": round(statistics.median(requests)) if requests else None,
        "cpu": round(statistics.median(cpu), 3) if cpu else None,
        "peak": round(max(peaks) * 1024 / 1e6, 1) if peaks else None,
    }
