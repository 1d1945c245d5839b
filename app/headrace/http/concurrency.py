"""How many requests may be in flight while the event loop is what makes them slow: an adaptive limit.

A request takes some twenty turns of the loop: to be read, to begin, to be sent to the log together with others, and
back. Under a flood each turn reads more requests and takes longer, so that an event may be accepted only after seconds
although its request began soon. Therefore the limit falls to `CUT` of what is in flight if a request is in flight for
longer than an answer may take, at most once in the time of an answer; otherwise it grows by a twentieth in such a time.
It falls only if turns are long enough to explain the delay: a log that answers slowly needs more requests at once, and
a client may send its body slowly.
"""

from __future__ import annotations

import math

LEAST = 16.0
"""So many may always be in flight."""
CUT = 0.7
GROWTH = 0.05
"""For each answer in time."""
TURNS = 30.0
"""An answer that took longer than so many turns of the loop waited for something else."""
IDLE_SECONDS = 0.002
"""A loop whose turns are shorter has time left, and there is no limit."""
SMOOTHING = 0.1
"""The share of the newest turn in what one is expected to take."""


class ConcurrencyLimit:
    """Counts what is in flight; there is no limit until the loop is busy."""

    def __init__(self, most_seconds: float) -> None:
        """`most_seconds`: what an answer may take."""
        self._most_seconds = most_seconds
        self._came: dict[object, float] = {}
        """When each request in flight came, in that order."""
        self._limit = math.inf
        self._turn_seconds = 0.0
        self._cut_at = -math.inf

    def is_reached(self, now: float) -> bool:
        """True if no further request may come in."""
        if self._came:
            self._look(next(iter(self._came.values())), now)
        return len(self._came) >= self._limit

    def comes(self, request: object, now: float) -> None:
        """Note that a request is in flight."""
        self._came[request] = now

    def begins(self, waited_seconds: float) -> None:
        """Note for how long a request has waited to begin, which is about a turn of the loop."""
        self._turn_seconds += SMOOTHING * (waited_seconds - self._turn_seconds)

    def ends(self, request: object, now: float) -> None:
        """Note that a request has its answer; one that never came is not counted."""
        came = self._came.get(request)
        if came is None:
            return
        if self._turn_seconds < IDLE_SECONDS:
            self._limit = math.inf
        elif not self._look(came, now):
            self._limit += GROWTH
        del self._came[request]

    def forget(self) -> None:
        """Take the limit away: nothing has begun for a while."""
        self._limit, self._turn_seconds = math.inf, 0.0

    def _look(self, came: float, now: float) -> bool:
        """Return True if the loop makes a request late that came at that time, and then lower the limit."""
        if not self._most_seconds < now - came < TURNS * self._turn_seconds:
            return False
        if came > self._cut_at:  # what came before tells little of what the last cut has brought
            self._limit = max(LEAST, CUT * min(self._limit, len(self._came)))
            self._cut_at = now
        return True
