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
"""Callers that are remembered; of more, those who may publish now are forgotten.

If most of them have to wait, the others are looked for when twice as many are known: each publish pays for one look.
"""


class Rates:
    """The buckets, by the names of callers."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[float, float, float]] = {}
        """(tokens, when that was so, how many come in a second)."""
        self._most_known = MOST_KNOWN

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
        self._buckets[caller.name] = (self._tokens(caller.name, rate) - events, self._clock(), rate)
        if len(self._buckets) > self._most_known:
            self._forget()

    def give_back(self, caller: Caller, events: int) -> None:
        """Take back what was counted: the events were not acknowledged, and the caller has to send them again."""
        self.take(caller, -events)

    def _forget(self) -> None:
        waiting = {name: kept for name, kept in self._buckets.items() if self._tokens(name, kept[2]) < 1.0}
        self._buckets = waiting
        self._most_known = max(MOST_KNOWN, 2 * len(waiting))

    def _tokens(self, name: str, rate: float) -> float:
        most = max(1.0, rate * BURST_SECONDS)
        tokens, at, _ = self._buckets.get(name, (most, 0.0, rate))
        return min(most, tokens + (self._clock() - at) * rate)
