"""The curves of growth and of a soak as plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.plots import OURS, new_plot, save, scale_in_ms


def plot_curve(
    name: str, axis: str, points: Sequence[Mapping[str, Any]], folder: Path, *, is_logarithmic: bool
) -> None:
    """Events per second, and the processor time of an event, against what grows."""
    figure, axes = new_plot(f"By {axis}", width=4.6, height=2.8)
    xs = [point["x"] for point in points]
    axes.plot(xs, [point["events_per_second"] for point in points], marker="o", color=OURS, label="events/s")
    axes.set_ylim(bottom=0)
    axes.set_xlabel(axis)
    axes.set_ylabel("events/s")
    cost = axes.twinx()
    cost.plot(xs, [point["worker_microseconds"] for point in points], marker=".", linestyle="--", color="#c0722f")
    cost.set_ylim(bottom=0)
    cost.set_ylabel("µs of the worker (dashed)")
    if is_logarithmic:
        axes.set_xscale("log")
    axes.set_xticks(xs, [f"{x:,}" for x in xs])
    axes.set_xticks([], minor=True)
    save(figure, folder, f"growth-{name}")


def plot_load(points: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Latency against offered load, up to and past the knee."""
    figure, axes = new_plot("Time until the commit, by offered load", width=4.6, height=2.8)
    for name in [name for name in points[0] if name.startswith("p")]:
        axes.plot([point["x"] for point in points], [point[name] for point in points], marker="o", label=name)
    scale_in_ms(axes)
    axes.set_xlabel("events/s")
    axes.legend(fontsize=7, frameon=False)
    save(figure, folder, "growth-load")


def plot_soak(samples: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Throughput, the cost of an event, memory and dead tuples over the time."""
    from matplotlib import pyplot

    names = {
        "events_per_second": "events/s",
        "worker_microseconds": "µs of the worker",
        "resident_mb": "MB of the worker",
        "dead_tuples": "dead tuples",
    }
    figure, all_axes = pyplot.subplots(len(names), sharex=True, figsize=(7.0, 5.4), layout="constrained")
    minutes = [sample["seconds"] / 60 for sample in samples]
    for axes, (name, label) in zip(all_axes, names.items(), strict=True):
        axes.plot(minutes, [sample[name] for sample in samples], color=OURS, linewidth=1)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(label)
    all_axes[-1].set_xlabel("minutes")
    save(figure, folder, "soak")
