"""Plots as SVG, by hand: lines over an axis, linear or logarithmic. No script, no font, no file beside the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 34, 42


class Line(NamedTuple):
    """One line of a plot; its class gives it its colour (`c0` ... `c4`)."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: int = 0
    has_dots: bool = False
    is_dashed: bool = False


class Axis(NamedTuple):
    """What an axis shows, and over which values."""

    title: str
    is_log: bool = False


class _Scale:
    """Places values on a stretch of pixels."""

    def __init__(self, values: Sequence[float], axis: Axis, first: float, last: float) -> None:
        self.is_log = axis.is_log
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        if axis.is_log:
            self.low = 10 ** math.floor(math.log10(max(low, 1e-6)))
            self.high = 10 ** math.ceil(math.log10(max(high, self.low * 10)))
        else:
            step = _step(high or 1.0)
            self.low, self.high = 0.0, math.ceil((high or 1.0) / step - 1e-9) * step
        self._first, self._last = first, last

    def place(self, value: float) -> float:
        """Return the pixel of a value."""
        if self.is_log:
            value = max(value, self.low)
            share = math.log10(value / self.low) / math.log10(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self._first + share * (self._last - self._first)

    def ticks(self) -> list[float]:
        """Return the values that are named."""
        if self.is_log:
            decades = round(math.log10(self.high / self.low))
            return [self.low * 10**each for each in range(decades + 1)]
        step = _step(self.high)
        return [step * each for each in range(round(self.high / step) + 1)]


def plot(title: str, x: Axis, y: Axis, lines: Sequence[Line]) -> str:
    """Return one plot as an `<svg>` element; lines without points are left out."""
    shown = [line for line in lines if line.points]
    points = [point for line in shown for point in line.points]
    across = _Scale([point[0] for point in points], x, LEFT, WIDTH - RIGHT)
    up = _Scale([point[1] for point in points if point[1] > 0 or not y.is_log], y, HEIGHT - BOTTOM, TOP)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    for value in up.ticks():
        at = up.place(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{_short(value)}</text>')
    for value in across.ticks():
        at = across.place(value)
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{_short(value)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x.title)}</text>')
    parts.append(f'<text class="unit" x="{LEFT - 6}" y="{TOP - 14}" text-anchor="end">{escape(y.title)}</text>')
    parts += _legend(shown)
    parts += [part for line in shown for part in _drawn(line, across, up)]
    parts.append("</svg>")
    return "".join(parts)


def _drawn(line: Line, across: _Scale, up: _Scale) -> list[str]:
    places = [(across.place(x), up.place(y)) for x, y in line.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dashed = ' stroke-dasharray="5 4"' if line.is_dashed else ""
    parts = [f'<polyline class="c{line.colour}" points="{path}"{dashed}/>']
    if line.has_dots or len(places) == 1:
        parts += [f'<circle class="c{line.colour}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places]
    return parts


def _legend(lines: Sequence[Line]) -> list[str]:
    parts, at = [], float(LEFT + 8)
    for line in lines:
        dashed = ' stroke-dasharray="5 4"' if line.is_dashed else ""
        parts.append(f'<line class="c{line.colour}" x1="{at}" x2="{at + 18}" y1="{TOP - 18}" y2="{TOP - 18}"{dashed}/>')
        parts.append(f'<text x="{at + 23}" y="{TOP - 14}">{escape(line.name)}</text>')
        at += 38 + 6.4 * len(line.name)
    return parts


def _step(high: float) -> float:
    """Return a round distance between ticks, of which about five fit."""
    rough = high / 5
    power = math.pow(10, math.floor(math.log10(rough)))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)


def _short(value: float) -> str:
    """Return a value in few characters: `2.5k`, `10M`."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.3g}"
