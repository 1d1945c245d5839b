"""The timeline of a run as a drawing: what was sent and applied, and when each fault began and was over."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tests.crash.history import History, Sample

WIDTH, HEIGHT, LEFT, TOP = 1_000, 260, 70, 24
LANES, LANE = 6, 9
"""Faults that overlap stand in so many lines below the plot, each so high."""
MOST_POINTS = 600
COLOURS = ["#b3261e", "#b06000", "#6a3ea1", "#00677d", "#7d5260", "#3b6939", "#515b92", "#984061"]


def timeline(history: History) -> str:
    """Return an SVG element."""
    samples = _thin(history.samples)
    if len(samples) < 2:
        return ""
    seconds = max(samples[-1].at, 1.0)
    most = max(1, *(sample.sent for sample in samples), *(sample.applied for sample in samples))

    def x(at: float) -> float:
        return LEFT + (WIDTH - LEFT) * at / seconds

    def y(count: int) -> float:
        return TOP + HEIGHT * (1 - count / most)

    kinds = sorted({fault.kind for fault in history.faults})
    colour = {kind: COLOURS[number % len(COLOURS)] for number, kind in enumerate(kinds)}
    parts = [f'<svg viewBox="0 0 {WIDTH} {TOP + HEIGHT + LANES * LANE + 60}" role="img" aria-label="timeline">']
    for part in range(5):
        count, at = most * part // 4, seconds * part / 4
        parts.append(f'<path d="M{LEFT},{y(count):.1f}H{WIDTH}" stroke="#dde3e8"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(count) + 4:.1f}" text-anchor="end">{count:,}</text>')
        parts.append(
            f'<text x="{x(at):.1f}" y="{TOP + HEIGHT + LANES * LANE + 22}" text-anchor="middle">{at:.0f} s</text>'
        )
    for number, fault in enumerate(history.faults):
        top = TOP + HEIGHT + 6 + (number % LANES) * LANE
        width = max(2.0, x(fault.ended or seconds) - x(fault.began))
        title = escape(f"{fault.kind} {fault.point} {fault.detail}")
        parts.append(
            f'<rect x="{x(fault.began):.1f}" y="{top}" width="{width:.1f}" height="{LANE - 2}" '
            f'fill="{colour[fault.kind]}"><title>{title}</title></rect>'
        )
    for name, stroke in (("sent", "#9aa7b4"), ("applied", "#1f6feb")):
        line = " ".join(f"{x(each.at):.1f},{y(getattr(each, name)):.1f}" for each in samples)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{stroke}" stroke-width="1.6"/>')
    parts += _legend({"sent": "#9aa7b4", "applied": "#1f6feb", **colour})
    return "\n".join([*parts, "</svg>"])


def _legend(colours: dict[str, str]) -> list[str]:
    parts, at, line = [], float(LEFT), 0
    for name, colour in colours.items():
        width = 24 + 6.2 * len(name)
        if at + width > WIDTH:
            at, line = float(LEFT), line + 14
        y = TOP + HEIGHT + LANES * LANE + 40 + line
        parts.append(f'<rect x="{at:.0f}" y="{y - 8}" width="9" height="9" fill="{colour}"/>')
        parts.append(f'<text x="{at + 13:.0f}" y="{y}">{escape(name)}</text>')
        at += width
    return parts


def _thin(samples: Sequence[Sample]) -> list[Sample]:
    step = max(1, len(samples) // MOST_POINTS)
    return [*samples[::step], *samples[-1:]]
