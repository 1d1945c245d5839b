"""How many requests may be in flight while the event loop is what makes them slow: an adaptive limit.

A request takes some twenty turns of the loop: to be read, to begin, to be sent to the log together with others, and
back. Under a flood each turn reads more requests and takes longer, so that an event may be accepted only after seconds
although its request began soon. Therefore the limit falls to `CUT` of what is in flight if a request is in flight for
longer than an answer may take, at most once in the time of an answer; otherwise it grows by a seventh in such a time.
It falls only if the loop is busy, and lags enough to explain the delay: a log that answers slowly needs more requests
at once, and clients may send their bodies slowly. A loop whose thread gets little of a processor counts as idle: it
waits, or others have the processor or the interpreter's lock, which refusing requests does not change.
"""

from __future__ import annotations

import math
from itertools import islice

from headrace.http.loop_load import LoopLoad

LEAST = 64.0
"""So many may always be in flight: what keeps the loop busy may be something else than requests."""
CUT = 0.7
GROWTH = 0.15
"""For each answer in time."""
LAGS = 50.0
"""An answer that took longer than so many times what the loop lags waited for something else."""
IDLE_SECONDS = 0.002
BUSY_SHARE = 0.5
"""A loop that lags less, or that runs in less of the time, counts as idle, and there is no limit."""
SEARCHED = 32
"""Of the oldest requests so many are looked at: those in front may wait for something else."""


class ConcurrencyLimit:
    """Counts what is in flight; there is no limit until the loop is busy."""

    def __init__(self, most_seconds: float, load: LoopLoad) -> None:
        """`most_seconds`: what an answer may take; `load`: that of the loop."""
        self._most_seconds = most_seconds
        self._load = load
        self._came: dict[object, float] = {}
        """When each request in flight came, in that order."""
        self._limit = math.inf
        self._cut_at = -math.inf

    @property
    def in_flight(self) -> int:
        """How many requests have no answer yet."""
        return len(self._came)

    def is_reached(self, now: float) -> bool:
        """True if no further request may come in."""
        if self._is_idle:
            self._limit = math.inf
            return False
        for came in islice(self._came.values(), SEARCHED):
            if now - came < LAGS * self._load.lag_seconds:
                self._look(came, now)
                break
        return len(self._came) >= self._limit

    def comes(self, request: object, now: float) -> None:
        """Note that a request is in flight."""
        self._came[request] = now

    def ends(self, request: object, now: float) -> None:
        """Note that a request has its answer."""
        came = self._came[request]
        if not self._look(came, now) and now - came <= self._most_seconds:
            self._limit += GROWTH
        del self._came[request]

    @property
    def _is_idle(self) -> bool:
        return self._load.lag_seconds < IDLE_SECONDS or self._load.share < BUSY_SHARE

    def _look(self, came: float, now: float) -> bool:
        """Return True if the loop makes a request late that came at that time, and then lower the limit."""
        if self._is_idle or not self._most_seconds < now - came < LAGS * self._load.lag_seconds:
            return False
        if came > self._cut_at:  # what came before tells little of what the last cut has brought
            self._limit = max(LEAST, CUT * min(self._limit, len(self._came)))
            self._cut_at = now
        return True
