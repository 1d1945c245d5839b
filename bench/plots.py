"""The figures as plots, each as PNG and as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl

from bench.comparison import Comparison
from bench.contenders import LABELS
from bench.latency import Latency

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OURS, OTHERS = "#1f6f8b", "#b0b7bd"

mpl.use("agg")
mpl.rcParams |= {
    "svg.hashsalt": "headrace",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def new_plot(title: str, width: float = 7.0, height: float = 3.6) -> tuple[Figure, Axes]:
    """Return an empty plot."""
    from matplotlib import pyplot  # after the backend is chosen

    figure, axes = pyplot.subplots(figsize=(width, height), layout="constrained")
    axes.set_title(title, loc="left")
    return figure, axes


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write both files; the same figures make the same bytes."""
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.png", dpi=110, metadata={"Software": None})
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    pyplot.close(figure)


def plot_throughput(comparison: Comparison, folder: Path) -> None:
    """A bar per contender on a logarithmic scale, with its range over the runs."""
    names = sorted(comparison.contenders, key=comparison.rate)
    rates = [comparison.rate(name) for name in names]
    lows = [
        rate - min(run.events_per_second for run in comparison.of(name))
        for name, rate in zip(names, rates, strict=True)
    ]
    highs = [
        max(run.events_per_second for run in comparison.of(name)) - rate
        for name, rate in zip(names, rates, strict=True)
    ]
    figure, axes = new_plot("Events applied per second by one process (logarithmic)", height=0.6 + 0.32 * len(names))
    colors = [OURS if name.startswith("headrace") else OTHERS for name in names]
    axes.barh([LABELS[name] for name in names], rates, xerr=[lows, highs], color=colors, ecolor="#333333")
    axes.set_xscale("log")
    for number, rate in enumerate(rates):
        axes.annotate(f" {rate:,.0f}", (rate, number), va="center", xytext=(6, 0), textcoords="offset points")
    axes.margins(x=0.25)
    save(figure, folder, "throughput")


def plot_latency(latencies: Sequence[Latency], folder: Path) -> None:
    """A curve per contender for each rate: milliseconds at each percentile."""
    for rate in sorted({each.rate for each in latencies}):
        figure, axes = new_plot(f"From an event's time to its commit, at {rate:,} events/s (open loop)")
        for each in latencies:
            if each.rate != rate:
                continue
            xs = [1 / (1 - percentile / 100) for percentile, _ in each.curve]
            ours = each.contender.startswith("headrace")
            axes.plot(xs, [ms for _, ms in each.curve], label=LABELS[each.contender], linewidth=2.2 if ours else 1.2)
        axes.set_xscale("log")
        scale_in_ms(axes)
        ticks = [tick for tick in (1, 2, 10, 100, 1_000) if tick <= max(axes.get_xlim()[1], 10)]
        axes.set_xticks(ticks, [f"p{100 * (1 - 1 / tick):g}" for tick in ticks])
        axes.legend(fontsize=7, frameon=False)
        save(figure, folder, f"latency-{rate}")


def scale_in_ms(axes: Axes) -> None:
    """Make the upright axis logarithmic, with plain numbers."""
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
    axes.set_ylabel("ms")
