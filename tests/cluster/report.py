"""What each step came to: a row of a table, and everything as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.cluster.load import Run


class Row(NamedTuple):
    """One step."""

    step: str
    purpose: str
    seconds: float
    run: Run | None
    found: dict[str, Any]
    faults: list[str]

    @property
    def cells(self) -> list[str]:
        """The cells of the table."""
        if self.run is None:
            return [self.step, "", "", "", "", "; ".join(self.faults) or self.found.get("said", "passed")]
        moves = sorted(self.found.get("moves", []))
        broken = {name: count for name, count in self.run.report["answers"].items() if name != "202"}
        return [
            self.step,
            str(self.run.events),
            f"{self.found.get('longest_gap_seconds', 0):.1f} s",
            f"{len(moves)}: {percentile(moves, 0.5):.2f} / {percentile(moves, 0.95):.2f} s" if moves else "0",
            ", ".join(f"{count} of {name}" for name, count in sorted(broken.items())) or "none",
            "; ".join(self.faults) or "exact",
        ]


HEADINGS = (
    "step",
    "events",
    "longest gap",
    "moves of partitions: median / 95 % of the stand-still",
    "answers other than 202",
    "result",
)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of the sorted values does not exceed."""
    return values[min(len(values) - 1, int(share * len(values)))]


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a table of Markdown."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "| " + " | ".join("---" for _ in HEADINGS) + " |"]
    return "\n".join([*lines, *("| " + " | ".join(row.cells) + " |" for row in rows)])


def write(rows: Sequence[Row], folder: Path) -> None:
    """Store the table, and what it was made of."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text(table(rows) + "\n")
    (folder / "report.json").write_text(json.dumps([row._asdict() for row in rows], indent=1, default=tuple) + "\n")
