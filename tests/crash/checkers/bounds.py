"""I11: memory and connections are bounded, whatever happens."""

from __future__ import annotations

from collections.abc import Iterator

from tests.crash.checkers.violation import Violation
from tests.crash.evidence import Evidence

MOST_BYTES = 1_500_000_000
"""Of one worker, which may own all partitions of every subscription, each with a full dedupe window and cache."""
MOST_CONNECTIONS = 20
"""Of one worker: its pool, and what watches and migrates beside it."""


def check_bounds(evidence: Evidence) -> Iterator[Violation]:
    """Compare every sample with the bounds."""
    samples = evidence.history.samples
    if not samples:
        yield Violation("I11", "nothing was measured")
        return
    largest = max(sample.largest_bytes for sample in samples)
    if largest > MOST_BYTES:
        yield Violation("I11", f"a worker had {largest / 1e6:.0f} MB of memory")
    workers = max(sample.workers for sample in samples)
    most = max(sample.connections for sample in samples)
    if most > workers * MOST_CONNECTIONS:
        yield Violation("I11", f"{workers} workers had {most} connections")
