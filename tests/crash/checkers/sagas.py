"""Sagas: each ends as its order asks for, and what was done for it was done once."""

from __future__ import annotations

from collections.abc import Iterator

from tests.crash.checkers.violation import Violation
from tests.crash.evidence import Evidence

ENDS = {
    "good": ("completed", ["reserve", "pack", "pay"]),
    "bad": ("compensated", ["reserve", "pack", "unpack", "release"]),
}


def check_sagas(evidence: Evidence) -> Iterator[Violation]:
    """Compare each order with the end of its saga and with the work that was done."""
    orders = 0
    for kind, (status, done) in ENDS.items():
        for key, number in evidence.streams.asked[kind].each():
            orders += 1
            order = f"{key}/{number}"
            found = evidence.sagas.get(order), evidence.work.get(order)
            if found != (status, done):
                yield Violation("saga", f"order {order} is {found[0]} with {found[1]}, not {status} with {done}")
    if len(evidence.sagas) != orders:
        yield Violation("saga", f"there are {len(evidence.sagas)} sagas of {orders} orders")
