"""Bounds how many events a second a caller may publish, in this process: a token bucket per caller that has a limit.

A request is let in if there is a token for one event, and then costs as many as it has events. So a batch may be
larger than what a second allows, a caller who sends less than the limit is never refused, and over a longer time nobody
gets more than the limit. The first check comes before the body is read: what is refused costs next to nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from headrace.http.caller import Caller
from headrace.http.problems import Problem

BURST_SECONDS = 1.0
"""A caller who was silent may send as much as in so many seconds at once."""
MOST_KNOWN = 10_000
"""Callers that are remembered; of more, those who may publish now are forgotten."""


class Rates:
    """The buckets, by the names of callers."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}
        """(tokens, when that was so)."""

    def check(self, caller: Caller) -> None:
        """Raise Problem 429, which says when to come again, if the caller has published too much."""
        rate = caller.events_per_second
        if rate is None or (tokens := self._tokens(caller.name, rate)) >= 1.0:
            return
        wait = math.ceil((1.0 - tokens) / rate)
        raise Problem(
            429,
            "rate-limited",
            "Too many events",
            f"{caller.name!r} may publish {rate:g} events a second and has published more; nothing was accepted, "
            f"send it again in {wait} s.",
            headers={"Retry-After": str(wait)},
        )

    def take(self, caller: Caller, events: int) -> None:
        """Count events that are published now."""
        rate = caller.events_per_second
        if rate is None:
            return
        self._buckets[caller.name] = (self._tokens(caller.name, rate) - events, self._clock())
        if len(self._buckets) > MOST_KNOWN:
            self._buckets = {name: bucket for name, bucket in self._buckets.items() if bucket[0] < 1.0}

    def _tokens(self, name: str, rate: float) -> float:
        most = max(1.0, rate * BURST_SECONDS)
        tokens, at = self._buckets.get(name, (most, 0.0))
        return min(most, tokens + (self._clock() - at) * rate)
