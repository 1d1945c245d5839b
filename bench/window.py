"""`python -m bench.window`: what the dedupe window of a partition takes of memory, and of time for each event."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from statistics import median
from typing import NamedTuple

from rich.console import Console

from bench.processes import resident_bytes
from bench.tables import Rows, terminal
from headrace.garbage import tune_garbage_collection
from headrace.ledger.rows import IDENTITY_BYTES
from headrace.ledger.window import DedupeWindow


class Cost(NamedTuple):
    """What a full window costs."""

    bytes_of_an_id: float
    look_up_ns: float
    """Of an identity that is not in it."""
    follow_ns: float
    """To add one and drop another."""


def main() -> None:
    """Print a row for each size, measured in a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m bench.window", description=__doc__)
    parser.add_argument("--ids", type=int, nargs="+", default=[10_000, 200_000, 1_000_000], help="sizes of the window")
    parser.add_argument("--events", type=int, default=3_000, help="of a batch (default: 3000)")
    parser.add_argument("--batches", type=int, default=100, help="that are timed (default: 100)")
    options = parser.parse_args()
    rows: Rows = [["ids", "MB", "bytes of an id", "ns to look one up", "ns to add one and drop one"]]
    for ids in options.ids:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            cost = pool.apply(measure, (ids, options.events, options.batches))
        figures = [f"{ids * cost.bytes_of_an_id / 1e6:.1f}"] + [f"{figure:.0f}" for figure in cost]
        rows.append([f"{ids:,}", *figures])
    Console(width=120).print(terminal(rows, "processor time; medians of the batches"))


def measure(ids: int, events: int, batches: int) -> Cost:
    """Return what a window of so many ids costs once it is full."""
    tune_garbage_collection()
    before, window = resident_bytes(os.getpid()), DedupeWindow(ids)
    full = 2 * ids // events  # the table of a dictionary is made anew, and larger, while ids come and go
    looked_up, followed = [], []
    for number in range(full + batches):
        random = os.urandom(events * IDENTITY_BYTES)
        identities = [random[at : at + IDENTITY_BYTES] for at in range(0, len(random), IDENTITY_BYTES)]
        marks = [(number * events + index) << 32 | index for index in range(events)]
        get = window.marks.get
        started = time.process_time()
        for identity in identities:
            get(identity)
        between = time.process_time()
        window.add(identities, marks, time.time())
        if number >= full:
            looked_up.append(between - started)
            followed.append(time.process_time() - between)
    each = 1e9 / events
    size = (resident_bytes(os.getpid()) - before) / len(window)
    return Cost(size, median(looked_up) * each, median(followed) * each)


if __name__ == "__main__":
    main()
