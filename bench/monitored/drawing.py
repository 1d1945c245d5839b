"""Draws a dashboard as Grafana lays it out: a panel for each place of the grid, with its lines."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from bench.monitored.panels import Line, Panel
from bench.monitored.prometheus import Series
from bench.plots import save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.layout_engine import ConstrainedLayoutEngine

WIDTH, CELL = 15.0, 0.27
"""Inches: of a whole row of 24 cells, and the height of one."""
MOST_LINES = 14
COLOURS = 64  # make a third of the bytes of all colours
UNITS = {"cps": "/s", "s": "s", "reqps": "req/s", "Bps": "B/s", "percentunit": "share", "bytes": "bytes", "short": ""}


def draw(name: str, panels: list[Panel], since: float, until: float, folder: Path) -> Path:
    """Write the picture of a dashboard from one time to another, and return its path."""
    from matplotlib import pyplot  # after bench.plots has chosen the backend

    rows = max(panel.place["y"] + panel.place["h"] for panel in panels)
    figure = pyplot.figure(figsize=(WIDTH, rows * CELL), layout=_layout())
    grid = figure.add_gridspec(rows, 24)
    for panel in panels:
        at = panel.place
        axes = figure.add_subplot(grid[at["y"] : at["y"] + at["h"], at["x"] : at["x"] + at["w"]])
        axes.set_title(panel.title, loc="left", fontsize=8, fontweight="bold")
        if panel.kind == "timeseries":
            _lines(axes, panel, since)
            axes.set_xlim(0, until - since)
        else:
            {"stat": _stat, "table": _table, "heatmap": _heatmap}[panel.kind](axes, panel)
    save(figure, folder, name)
    (folder / f"{name}.svg").unlink()  # thousands of points are no drawing to keep
    path = folder / f"{name}.png"
    Image.open(path).quantize(COLOURS).save(path, optimize=True)
    return path


def _layout() -> ConstrainedLayoutEngine:
    """Return a layout without space between rows: it counts for each row of cells, of which a panel has eight."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return ConstrainedLayoutEngine(h_pad=0.0, hspace=0.0)


def label(line: Line, series: Series) -> str:
    """Return the legend of a series as Grafana writes it."""
    if line.legend:
        return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: series.labels.get(found[1], ""), line.legend)
    return ", ".join(f"{name}={value}" for name, value in sorted(series.labels.items()) if name != "__name__")


def _every(panel: Panel) -> list[tuple[str, Series]]:
    return [(label(line, series), series) for line in panel.lines for series in line.series]


def _lines(axes: Axes, panel: Panel, since: float) -> None:
    for text, series in _every(panel)[:MOST_LINES]:
        times = [(at - since) for at, _ in series.points]
        values = [value for _, value in series.points]
        axes.plot(times, values, linewidth=1.0, label=text, marker="." if len(values) == 1 else None)
    axes.set_ylabel(UNITS[panel.unit], fontsize=6)
    axes.tick_params(labelsize=6)
    axes.set_ylim(bottom=0)
    if _every(panel):
        axes.legend(fontsize=5, loc="upper left", ncols=2, frameon=False)


def _stat(axes: Axes, panel: Panel) -> None:
    axes.axis("off")
    shown = [f"{series.points[-1][1]:,.4g} {UNITS[panel.unit]} {text}".strip() for text, series in _every(panel)]
    size = 15 if len(shown) < 2 else 7
    axes.text(0.5, 0.45, "\n".join(shown), ha="center", va="center", fontsize=size, transform=axes.transAxes)


def _table(axes: Axes, panel: Panel) -> None:
    axes.axis("off")
    rows = [(series.points[-1][0], series) for _, series in _every(panel)]
    last = max((at for at, _ in rows), default=0.0)
    now = [series for at, series in rows if at == last][:16]
    if not now:
        return
    names = sorted({name for series in now for name in series.labels if name != "__name__"})
    cells = [[*(series.labels.get(name, "") for name in names), f"{series.points[-1][1]:g}"] for series in now]
    table = axes.table(cellText=cells, colLabels=[*names, "value"], loc="upper center", cellLoc="left")
    table.auto_set_font_size(False)
    table.set_fontsize(5.5)


def _heatmap(axes: Axes, panel: Panel) -> None:
    series = sorted((each for _, each in _every(panel)), key=lambda each: float(each.labels["le"]))
    if not series:
        return
    times = sorted({at for each in series for at, _ in each.points})
    below = [dict(each.points) for each in series]
    cumulated = [[each.get(at, 0.0) for at in times] for each in below]
    rates = [
        [high - low for high, low in zip(row, lower, strict=True)]
        for row, lower in zip(cumulated, [[0.0] * len(times), *cumulated], strict=False)
    ]
    axes.imshow(rates, aspect="auto", origin="lower", cmap="YlGnBu", interpolation="nearest")
    axes.set_yticks(range(len(series)), [each.labels["le"] for each in series], fontsize=5)
    axes.tick_params(axis="x", labelsize=6)
