"""The table: seconds of every subject, and the ratios of ours beside the aims."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.suite.aims import AIMS, FLAT, MOST_MB
from bench.suite.result import Row

OURS = "ufs"
_Figures = dict[tuple[str, str, str], Row]


def text(rows: Sequence[Row]) -> str:
    """Markdown, one table for each placement, then memory and CPU time."""
    placements = list(dict.fromkeys(row["placement"] for row in rows))
    parts = ["\n".join(_seconds(rows, placement)) for placement in placements]
    parts.append("\n".join(_servers(rows)))
    return "\n\n".join(parts)


def ratio(figures: _Figures, workload: str, placement: str, over: str, ours: str = OURS) -> float | None:
    """Seconds of ours over those of another; None where one of both was not measured."""
    first = figures.get((workload, placement, ours))
    second = figures.get((workload, placement, over))
    return first["seconds"] / second["seconds"] if first and second and second["seconds"] else None


def keyed(rows: Sequence[Row]) -> _Figures:
    return {(row["workload"], row["placement"], row["subject"]): row for row in rows}


def _seconds(rows: Sequence[Row], placement: str) -> Iterator[str]:
    figures = keyed(rows)
    here = [row for row in rows if row["placement"] == placement]
    subjects = sorted(dict.fromkeys(row["subject"] for row in here), key=_order)
    runs = [row["runs"] for row in here]
    yield f"{placement}: seconds, medians of {min(runs)} to {max(runs)} runs; ratios are of {OURS}"
    yield ""
    head = [placement, *subjects, "to peer", "aim", "", "to directory", "aim", ""]
    yield _line(head)
    yield _line(["---", *("---:" for _ in head[1:])])
    for workload in dict.fromkeys(row["workload"] for row in here):
        cells = [figures.get((workload, placement, subject)) for subject in subjects]
        yield _line([workload, *(f"{row['seconds']:.3f}" if row else "" for row in cells),
                     *_judged(figures, workload, placement)])  # fmt: skip


def _judged(figures: _Figures, workload: str, placement: str) -> list[str]:
    aim = AIMS.get(workload)
    if aim is None:
        return [
            *_verdict(ratio(figures, workload, placement, "fuse-overlayfs"), None),
            *_flat(figures, workload, placement),
        ]
    return [
        *_verdict(ratio(figures, workload, placement, aim.peer), aim.of(placement)),
        *_verdict(ratio(figures, workload, placement, "directory"), aim.directory),
    ]


def _flat(figures: _Figures, workload: str, placement: str) -> list[str]:
    """Images of many layers are held against the one of one layer; the columns of the directory have that."""
    _, _, rest = workload.partition("-")
    depth, _, kind = rest.partition("-")
    single = figures.get((f"layers-1-{kind}", placement, "ufs-image"))
    many = figures.get((workload, placement, "ufs-image"))
    if depth in ("", "1") or single is None or many is None:
        return ["", "", ""]
    found = many["seconds"] / single["seconds"]
    return [f"image {found:.2f} to 1 layer", f"{FLAT}", "met" if found <= FLAT else "missed"]


def _verdict(found: float | None, aim: float | None) -> list[str]:
    shown = f"{found:.3f}" if found is not None and found < 0.02 else f"{found:.2f}" if found is not None else ""
    if aim is None:
        return [shown, "", ""]
    return [shown, f"{aim}", "" if found is None else "met" if found <= aim else "missed"]


def _servers(rows: Sequence[Row]) -> Iterator[str]:
    """What the servers needed besides time."""
    served = [row for row in rows if row["cpu"] is not None]
    figures = keyed(served)
    subjects = sorted(dict.fromkeys(row["subject"] for row in served), key=_order)
    yield "servers: CPU seconds / requests / peak in MB"
    yield ""
    yield _line(["workload", "placement", *subjects])
    yield _line(["---", "---", *("---:" for _ in subjects)])
    for workload, placement in dict.fromkeys((row["workload"], row["placement"]) for row in served):
        cells = [figures.get((workload, placement, subject)) for subject in subjects]
        yield _line([workload, placement, *(_needed(row) if row else "" for row in cells)])
    peaks = [row["peak"] for row in served if row["workload"] == "walk-cold" and row["subject"] == OURS]
    found = [peak for peak in peaks if peak is not None]
    if found:
        yield ""
        yield f"memory of {OURS} after walk-cold: {max(found)} MB (aim {MOST_MB:.0f}: " + (
            "met)" if max(found) < MOST_MB else "missed)"
        )


def _needed(row: Row) -> str:
    requests = "-" if row["requests"] is None else str(row["requests"])
    return f"{row['cpu']:.2f} / {requests} / {row['peak']}"


def _order(subject: str) -> int:
    known = ("directory", "overlayfs", "fuse-overlayfs", "unionfs-fuse", "podman", "ufs", "ufs-pyfuse3", "ufs-image")
    return known.index(subject)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
