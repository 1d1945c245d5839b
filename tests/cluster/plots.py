"""Draws what a run has stored: `python -m tests.cluster.plots build/cluster docs/images` (needs matplotlib)."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

COLUMNS = 3
MOST_SERIES = 8
UNITS: dict[str, str] = {"s": "s", "reqps": "1/s", "ops": "1/s", "bytes": "bytes", "percentunit": "share", "short": ""}


def main(folder: Path, images: Path) -> None:
    """Draw whatever is there."""
    mpl.use("Agg")
    mpl.rcParams.update({"font.size": 8, "axes.grid": True, "grid.alpha": 0.3, "axes.spines.top": False})
    images.mkdir(parents=True, exist_ok=True)
    for name, draw in DRAWINGS.items():
        if (folder / name).exists():
            draw(json.loads((folder / name).read_text()), images)


def draw_scaling(course: dict[str, list[dict[str, float]]], images: Path) -> None:
    """Draw lag, pods and how long each partition that moved stood still, above each other."""
    samples, moves = course["samples"], course["moves"]
    at = [sample["at"] for sample in samples]
    figure, (upper, middle, lower) = plt.subplots(3, 1, sharex=True, figsize=(8, 6), layout="constrained")
    upper.fill_between(at, [sample["lag"] for sample in samples], color="tab:blue", alpha=0.4)
    upper.set_ylabel("lag, records")
    middle.step(at, [sample["wanted"] for sample in samples], where="post", color="tab:orange", label="wanted")
    middle.step(at, [sample["ready"] for sample in samples], where="post", color="tab:green", label="ready")
    middle.set(ylabel="worker pods", ylim=(0, 6.5))
    middle.legend()
    for move in moves:
        lower.plot([move["at"] - move["seconds"], move["at"]], [move["seconds"]] * 2, color="tab:red", lw=2)
    longest = max((move["seconds"] for move in moves), default=1.0)
    lower.set(ylabel="stand-still of a move, s", xlabel="seconds", ylim=(0, 1.1 * longest))
    _save(figure, images / "scaling.png")


def draw_moves(rows: list[dict[str, Any]], images: Path) -> None:
    """Draw how long partitions stood still when they moved politely."""
    polite = ("restart_workers", "scale", "upgrade", "rollback", "drain_node", "restart_one_of_six")
    moves = {row["step"]: row["found"].get("moves", []) for row in rows if row["step"] in polite}
    moves = {step: seconds for step, seconds in moves.items() if seconds}
    if not moves:
        return
    top = max(max(seconds) for seconds in moves.values())
    edges = [index * max(0.1, math.ceil(top * 10) / 200) for index in range(22)]
    figure, axis = plt.subplots(figsize=(8, 3.5), layout="constrained")
    axis.hist(list(moves.values()), bins=edges, stacked=True, label=[step.replace("_", " ") for step in moves])
    axis.set(xlabel="seconds without a commit of a partition that moved", ylabel="moves")
    axis.legend()
    _save(figure, images / "standstill.png")


def draw_panels(panels: list[dict[str, Any]], images: Path) -> None:
    """Draw each dashboard's queries, a panel each."""
    for dashboard in sorted({panel["dashboard"] for panel in panels}):
        titles = list(dict.fromkeys(panel["title"] for panel in panels if panel["dashboard"] == dashboard))
        lines = math.ceil(len(titles) / COLUMNS)
        figure, axes = plt.subplots(lines, COLUMNS, figsize=(14, 2.3 * lines), layout="constrained", squeeze=False)
        for axis, title in zip(axes.flat, titles, strict=False):
            _draw_panel(axis, [each for each in panels if (each["dashboard"], each["title"]) == (dashboard, title)])
        for axis in list(axes.flat)[len(titles) :]:
            axis.set_visible(False)
        _save(figure, images / f"dashboard-{dashboard}.png")


def _draw_panel(axis: Any, queries: Sequence[dict[str, Any]]) -> None:
    unit = UNITS.get(queries[0]["unit"], queries[0]["unit"])
    axis.set_title(queries[0]["title"] + (f" ({unit})" if unit else ""), fontsize=8, loc="left")
    series = [each for query in queries for each in query["series"]]
    began = min((float(each["values"][0][0]) for each in series), default=0.0)
    for each in series[:MOST_SERIES]:
        at = [(float(time) - began) / 60 for time, _ in each["values"]]
        text = ", ".join(value for name, value in sorted(each["metric"].items()) if name != "__name__")
        axis.plot(at, [float(value) for _, value in each["values"]], lw=1, label=text)
    if not series:
        axis.text(0.5, 0.5, "nothing of the kind has happened", ha="center", transform=axis.transAxes, color="grey")
    elif any(each["metric"] for each in series):
        axis.legend(fontsize=5, loc="upper left")


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=80)
    plt.close(figure)
    sys.stdout.write(f"{path}\n")


DRAWINGS: dict[str, Callable[[Any, Path], None]] = {
    "scaling.json": draw_scaling,
    "report.json": draw_moves,
    "panels.json": draw_panels,
}

if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
