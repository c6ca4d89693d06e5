"""docs/bench.svg: seconds of ours over those of the peer, a bar for each workload and placement.

The picture brings its own light ground, so it can be read on a dark page too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from bench.suite.aims import AIMS
from bench.suite.placement import PLACEMENTS
from bench.suite.result import Row
from bench.suite.table import keyed, ratio

_COLOURS = {"free": "#2563a8", "one CPU": "#d98e32"}
_LEFT, _WIDTH, _TOP = 130, 560, 64
_BAR, _STEP = 9, 26
_MOST = 1.5
"""Ratios above are cut and have their number beside them, as all have."""


def svg(rows: Sequence[Row]) -> str:
    """The picture of what was measured, with the workloads that have a peer."""
    figures = keyed(rows)
    shown = [name for name in AIMS if any(ratio(figures, name, p, AIMS[name].peer) for p in PLACEMENTS)]
    height = _TOP + _STEP * len(shown) + 16
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 90}" height="{height}" '
        f'font-family="sans-serif" font-size="12" fill="#222">',
        '<rect width="100%" height="100%" rx="6" fill="#fafafa" stroke="#bbb"/>',
        f'<text x="{_LEFT}" y="20" font-weight="bold">Seconds of ufs, relative to fuse-overlayfs '
        "(the last three: to podman); less is better</text>",
        *_legend(),
        *_scale(height),
    ]
    for number, name in enumerate(shown):
        y = _TOP + _STEP * number
        lines.append(f'<text x="{_LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>')
        for index, placement in enumerate(PLACEMENTS):
            found = ratio(figures, name, placement, AIMS[name].peer)
            if found is not None:
                lines += _bar(found, AIMS[name].of(placement), y + 1 + index * (_BAR + 1), _COLOURS[placement])
    return "\n".join([*lines, "</svg>", ""])


def _legend() -> Iterator[str]:
    for number, placement in enumerate(PLACEMENTS):
        x = _LEFT + 90 * number
        yield f'<rect x="{x}" y="30" width="10" height="10" fill="{_COLOURS[placement]}"/>'
        yield f'<text x="{x + 15}" y="40">{placement}</text>'
    x = _LEFT + 90 * len(PLACEMENTS)
    yield f'<path d="M{x} 29v12" stroke="#222" stroke-width="2"/><text x="{x + 8}" y="40">aim</text>'


def _scale(height: int) -> Iterator[str]:
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5):
        x = _x(tick)
        colour = "#555" if tick == 1.0 else "#ddd"
        yield f'<path d="M{x} {_TOP}V{height - 12}" stroke="{colour}"/>'
        yield f'<text x="{x}" y="{_TOP - 6}" text-anchor="middle" fill="#555" font-size="10">{tick:g}</text>'


def _bar(found: float, aim: float, y: int, colour: str) -> Iterator[str]:
    end = _x(found)
    yield f'<rect x="{_LEFT}" y="{y}" width="{max(1.0, end - _LEFT):.1f}" height="{_BAR}" fill="{colour}"/>'
    yield f'<path d="M{_x(aim)} {y - 1}v{_BAR + 2}" stroke="#222" stroke-width="2"/>'
    label = f"{found:.3f}" if found < 0.02 else f"{found:.2f}"
    yield f'<text x="{max(end, _x(aim)) + 5:.1f}" y="{y + 8}" font-size="9" fill="#444">{label}</text>'


def _x(value: float) -> float:
    return round(_LEFT + _WIDTH * min(value, _MOST) / _MOST, 1)
