"""How many requests may be in flight while the event loop is what makes them slow: an adaptive limit.

A request takes some twenty turns of the loop: to be read, to begin, to be sent to the log together with others, and
back. Under a flood each turn reads more requests and takes longer, so that an event may be accepted only after seconds
although its request began soon. Therefore the limit falls when an answer takes longer than it may, in proportion and at
most once in the time of an answer, and grows by a twentieth in that time otherwise. It falls only if turns are long
enough to explain what the answer took: a log that answers slowly needs more requests at once, and a client may send its
body slowly.
"""

from __future__ import annotations

import math

LEAST = 16.0
"""So many may always be in flight."""
DEEPEST_CUT = 0.5
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
        self._in_flight = 0
        self._limit = math.inf
        self._turn_seconds = 0.0
        self._cut_at = -math.inf

    @property
    def is_reached(self) -> bool:
        """True if no further request may come in."""
        return self._in_flight >= self._limit

    def comes(self) -> None:
        """Note that a request is in flight."""
        self._in_flight += 1

    def begins(self, waited_seconds: float) -> None:
        """Note for how long a request has waited to begin, which is about a turn of the loop."""
        self._turn_seconds += SMOOTHING * (waited_seconds - self._turn_seconds)

    def ends(self, came: float, now: float) -> None:
        """Note that a request which came at that time has its answer."""
        seconds, in_flight = now - came, self._in_flight
        self._in_flight -= 1
        if self._turn_seconds < IDLE_SECONDS:
            self._limit = math.inf
        elif not self._most_seconds < seconds < TURNS * self._turn_seconds:
            self._limit += GROWTH
        elif came > self._cut_at:  # what came before tells little of what the last cut has brought
            self._limit = max(LEAST, min(self._limit, in_flight) * max(DEEPEST_CUT, self._most_seconds / seconds))
            self._cut_at = now

    def forget(self) -> None:
        """Take the limit away: nothing has begun for a while."""
        self._limit, self._turn_seconds = math.inf, 0.0
