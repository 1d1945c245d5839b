"""`python -m bench.window`: what the dedupe window of a partition takes of memory, and of time for each event.

New ids are looked up in chunks, as the decoder does with plain records, and one by one, as it does with all others.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from rich.console import Console

from bench.processes import resident_bytes
from bench.tables import Rows, terminal
from headrace.engine.columns import CHUNK_RECORDS
from headrace.garbage import tune_garbage_collection
from headrace.ledger.rows import IDENTITY_BYTES, pack_marks
from headrace.ledger.window import DedupeWindow, PackedRows, window_of


class Cost(NamedTuple):
    """What a full window costs."""

    bytes_of_an_id: float
    chunk_ns: float
    """To look up an identity that is not in it, among others."""
    look_up_ns: float
    """The same for one by itself."""
    follow_ns: float
    """To add one and drop another."""
    load_ns: float
    """To load one from the ledger's rows."""


def main() -> None:
    """Print a row for each size, measured in a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m bench.window", description=__doc__)
    parser.add_argument("--ids", type=int, nargs="+", default=[10_000, 200_000, 1_000_000], help="sizes of the window")
    parser.add_argument("--events", type=int, default=3_000, help="of a batch (default: 3000)")
    parser.add_argument("--batches", type=int, default=100, help="that are timed (default: 100)")
    options = parser.parse_args()
    rows: Rows = [
        ["ids", "MB", "bytes of an id", "ns to look one up", "ns by itself", "ns to add and drop", "ns to load"]
    ]
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
    in_chunks, alone, followed = list[float](), list[float](), list[float]()
    for number in range(full + batches):
        others, identities = _identities(events), _identities(events)
        chunks = [dict.fromkeys(others[at : at + CHUNK_RECORDS]) for at in range(0, events, CHUNK_RECORDS)]
        marks = [(number * events + index) << 32 | index for index in range(events)]
        get = window.marks.get
        times = [time.process_time()]
        for chunk in chunks:
            window.marks.keys().isdisjoint(chunk)
        times.append(time.process_time())
        for identity in identities:
            get(identity)
        times.append(time.process_time())
        window.add(identities, marks, time.time())
        times.append(time.process_time())
        if number >= full:
            for kept, (begun, ended) in zip((in_chunks, alone, followed), pairwise(times), strict=True):
                kept.append(ended - begun)
    each = 1e9 / events
    size = (resident_bytes(os.getpid()) - before) / len(window)
    chunk_ns, look_up_ns, follow_ns = (median(kept) * each for kept in (in_chunks, alone, followed))
    return Cost(size, chunk_ns, look_up_ns, follow_ns, _load_ns(ids, events))


def _identities(count: int) -> list[bytes]:
    random = os.urandom(count * IDENTITY_BYTES)
    return [random[at : at + IDENTITY_BYTES] for at in range(0, len(random), IDENTITY_BYTES)]


def _load_ns(ids: int, events: int) -> float:
    rows: PackedRows = [
        (os.urandom(events * IDENTITY_BYTES), pack_marks([first << 32 | index for index in range(events)]), 0.0)
        for first in range(0, ids, events)
    ]
    started = time.process_time()
    window_of(rows, ids)
    return (time.process_time() - started) * 1e9 / (len(rows) * events)


if __name__ == "__main__":
    main()
