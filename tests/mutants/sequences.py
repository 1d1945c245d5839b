"""Mistakes about events that are held until those before them have come."""

from __future__ import annotations

from dataclasses import replace

from tests.mutants.hunts import QUIET, TAKEN_OVER
from tests.mutants.mutant import Mutant, Patch

KEPT = "app/headrace/engine/order.py"
LANES_FILE = "app/headrace/engine/lanes.py"

SEQUENCES = (
    Mutant(
        "stale is compared as text",
        (Patch(KEPT, "    if place < expected:\n", "    if str(place) < str(expected):\n"),),
        hunt=replace(QUIET, events=6_000),  # the tenth event of a key comes before the ninth in few keys
    ),
    Mutant(
        "held events are lost at a take-over",
        (
            Patch(
                LANES_FILE,
                '            key = row["key"].decode()\n',
                '            if row["error_type"] == SequenceGapError.__name__:\n                continue\n'
                '            key = row["key"].decode()\n',
            ),
        ),
        hunt=TAKEN_OVER,
    ),
)
