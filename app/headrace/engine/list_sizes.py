"""How many events the next list of a batch handler has, so that one call takes a fraction of a second."""

from __future__ import annotations

from headrace.handlers.subscription import Handler

FIRST, MOST = 64, 10_000
QUICK_SECONDS, SLOW_SECONDS = 0.1, 0.25
"""After a quicker call the next list is twice as long, after a slower one half: a run does not wait for one call for
much longer than half a second (`patience.py`)."""


class ListSizes:
    """What is known of one partition's batch handlers. No clock, no I/O."""

    def __init__(self, most: int = MOST) -> None:
        """`most`: no list is longer; 1 for lanes, whose events are given one at a time."""
        self._most = most
        self._sizes: dict[Handler, int] = {}
        self._alone: dict[Handler, int] = {}
        """How many events of a handler come one at a time from now on."""

    def next(self, handler: Handler) -> int:
        """Return how many events the next list may have."""
        if self._alone.get(handler):
            return 1
        return min(self._sizes.get(handler, FIRST), handler.most_events or MOST, self._most)

    def took(self, handler: Handler, events: int, seconds: float) -> None:
        """A call with so many events has returned after so long."""
        if (alone := self._alone.get(handler, 0)) > 0:
            self._alone[handler] = alone - events
        elif seconds > SLOW_SECONDS:
            self._sizes[handler] = max(1, events // 2)
        elif seconds < QUICK_SECONDS:
            self._sizes[handler] = min(MOST, max(self._sizes.get(handler, FIRST), 2 * events))

    def overdue(self, handler: Handler, events: int) -> None:
        """A call did not return: so many events, which the run had come to, are given one at a time next."""
        self._sizes[handler], self._alone[handler] = 1, events
