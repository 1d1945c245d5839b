"""Latencies as they are: every one is kept, and percentiles are read from all of them at once, never averaged."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import msgspec

CURVE = (0, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.95, 99.99, 100)
"""The percentiles of a curve."""


class Percentiles(msgspec.Struct, frozen=True):
    """A distribution in milliseconds. A percentile with fewer than five samples above it is None: it would be luck."""

    count: int
    p50: float | None
    p90: float | None
    p99: float | None
    p999: float | None
    max: float | None
    curve: list[tuple[float, float]]
    """Percentile and milliseconds."""


class Latencies:
    """Seconds of one kind of wait in one step; 8 bytes each."""

    def __init__(self) -> None:
        self._seconds: array[float] = array("d")

    def add(self, seconds: float) -> None:
        """Keep one."""
        self._seconds.append(seconds)

    def percentiles(self) -> Percentiles:
        """Return the distribution of all that were kept."""
        ordered = sorted(self._seconds)
        known = {share: milliseconds(ordered, share) for share in (50, 90, 99, 99.9)}
        curve = [(share, at) for share in CURVE if (at := milliseconds(ordered, share)) is not None]
        return Percentiles(len(ordered), known[50], known[90], known[99], known[99.9], _rounded(ordered[-1:]), curve)


def milliseconds(ordered: Sequence[float], share: float) -> float | None:
    """Return a percentile in milliseconds; None if it rests on fewer than five samples above it (but 0, 50 and 100)."""
    if not ordered or (share not in (0, 50, 100) and len(ordered) * (100 - share) / 100 < 5):
        return None
    place = min(len(ordered) - 1, int(len(ordered) * share / 100))
    return _rounded(ordered[place : place + 1])


def _rounded(one: Sequence[float]) -> float | None:
    return round(one[0] * 1000, 3) if one else None
