"""Makes a counterexample as small as it can be within a number of trials."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from headrace.testing.exactly_once.schedule import Schedule, fitted, simpler
from headrace.testing.exactly_once.trial import History

MOST_TRIALS = 400

Difference = tuple[str, Any, Any, Any]
"""(kind, place, what it should be, what it is)."""


class Found(NamedTuple):
    """A schedule of some events that comes to something else than applying them one after the other."""

    events: Sequence[Any]
    history: History
    schedule: Schedule
    difference: Difference


Try = Callable[[History, Schedule], Awaitable[Difference | None]]


async def smallest(found: Found, record: Callable[[Sequence[Any]], Awaitable[History]], attempt: Try) -> Found:
    """Return the smallest counterexample that is found: first of few events, then of a simple schedule."""
    shrinking = _Shrinking(found, record, attempt)
    while await shrinking.with_fewer_events() or await shrinking.with_a_simpler_schedule():
        if shrinking.trials >= MOST_TRIALS:
            break
    return shrinking.found


class _Shrinking:
    def __init__(self, found: Found, record: Callable[[Sequence[Any]], Awaitable[History]], attempt: Try) -> None:
        self.found = found
        self.trials = 0
        self._record = record
        self._attempt = attempt

    async def with_fewer_events(self) -> bool:
        """Leave out halves, then quarters, at last single events; True if that was possible."""
        is_smaller, size = False, max(1, len(self.found.events) // 2)
        while True:
            start = 0
            while start < len(self.found.events) and len(self.found.events) > 1:
                rest = [*self.found.events[:start], *self.found.events[start + size :]]
                if rest and await self._still_fails(rest):
                    is_smaller = True
                else:
                    start += size
            if size == 1 or self.trials >= MOST_TRIALS:
                return is_smaller
            size //= 2

    async def _still_fails(self, events: Sequence[Any]) -> bool:
        try:
            history = await self._record(events)
        except Exception:  # without an earlier event a handler may refuse a later one
            self.trials += 1
            return False
        return await self._fails(events, history, fitted(self.found.schedule, history.keys))

    async def with_a_simpler_schedule(self) -> bool:
        """Take one thing away from the schedule; True if that was possible."""
        for schedule in simpler(self.found.schedule, list(self.found.history.log)):
            if self.trials >= MOST_TRIALS:
                return False
            if schedule != self.found.schedule and await self._fails(self.found.events, self.found.history, schedule):
                return True
        return False

    async def _fails(self, events: Sequence[Any], history: History, schedule: Schedule) -> bool:
        self.trials += 1
        difference = await self._attempt(history, schedule)
        if difference is None:
            return False
        self.found = Found(events, history, schedule, difference)
        return True
