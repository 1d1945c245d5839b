"""Tells an outage from poison, and lets a handler's partitions wait for its end.

```
closed ──many different keys fail, or an exception is named an outage──▶ open ──a probe is applied──▶ closed
                                                                        │  ▲
                                                                        └──┘ a probe fails: the next after a longer wait
```
The run that finds the outage is undone: nothing of it is parked, and no attempt is counted. While the breaker is open,
the partitions of its subscription wait in this process. Every now and then one of them runs a single event. If that one
fails, it is parked without an attempt, so that the next probe is another event: one that is poison by itself cannot
keep the breaker open.

Only runs with care are looked at, which follow a failure. A run without failures costs nothing here.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from headrace.backoff import Backoff
from headrace.errors import SchemaRegistryError
from headrace.handlers.policy import ErrorKind, Policy
from headrace.handlers.subscription import Handler
from headrace.handlers.verdicts import HandlerVerdict
from headrace.item import Item, Outcome
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.engine")

WINDOW_SECONDS = 30.0
"""Failures that are further apart are no sign of an outage."""
SHARE = 0.7
"""Of the different keys of a handler in the window, so many have to fail. Keys of runs without failures are not
counted, so that the share that is found is larger than the true one."""
MOST_KEYS = 5_000
"""The most calls in the window that are looked at, the latest, unless more keys have to fail."""
SILENT_SECONDS = 60.0
"""An outage is over as well if its handler has failed no more for so long, though events were tried: it has none left,
and those of other handlers are not to be tried one at a time for ever."""
FIRST_PROBE_SECONDS, LONGEST_PROBE_SECONDS = 1.0, 30.0


PolicyOf = Callable[[Handler | None], Policy]
SCHEMA_REGISTRY = "schema registry"
"""What an outage names in the place of a handler if a partition waits for the schemas of its records."""

_CALLED = frozenset({Outcome.APPLIED, Outcome.HANDLER_ERROR})


class OutageError(Exception):
    """A run has met an outage: undo it, and wait."""


class Outage(NamedTuple):
    """What the breaker is open for, or what else a partition waits for."""

    handler: str
    error: str
    since: float
    """Unix seconds."""


def held_up(error: Exception, before: Outage | None) -> Outage | None:
    """Return what a partition waits for that an error holds up, as it did `before`; None if no outage is to be told."""
    if not isinstance(error, SchemaRegistryError):
        return None
    return Outage(SCHEMA_REGISTRY, str(error), time.time() if before is None else before.since)


class Breaker:
    """The breaker of one subscription in one process, shared by its workers. No I/O.

    `keys`: so many different keys have to fail; with 0 only exceptions that a policy names open it.
    """

    def __init__(self, subscription: str, keys: int, clock: Callable[[], float]) -> None:
        self._subscription = subscription
        self._keys = keys
        self._clock = clock
        self._seen: deque[tuple[float, str, str, bool]] = deque(maxlen=max(MOST_KEYS, 2 * keys))
        """(time, handler, key, whether it failed) of the runs with care in the window."""
        self._backoff = Backoff(FIRST_PROBE_SECONDS, LONGEST_PROBE_SECONDS, 0.2)
        self._probe_at = 0.0
        self._silent_since: float | None = None
        """Since when probes have told nothing."""
        self.outage: Outage | None = None
        """None while the breaker is closed."""

    def judge(self, items: Sequence[Item], policy_of: PolicyOf, *, is_of_log: bool) -> None:
        """Look at what a run with care did. Raises: OutageError (it met an outage).

        Retries of lanes (not `is_of_log`) consist of keys that have failed, so that their share tells nothing.
        """
        now, failed = self._clock(), dict[str, Item]()
        for item in items:
            if item.outcome is Outcome.HANDLER_ERROR and (kind := _kind(item, policy_of)) is not None:
                if kind == "outage":
                    self._open(item)
                assert item.handler is not None
                failed[item.handler.name] = item
        if self.outage is not None and self.outage.handler in failed:
            raise OutageError
        while self._seen and self._seen[0][0] < now - WINDOW_SECONDS:
            self._seen.popleft()
        if not is_of_log or not (failed or self._seen):
            return
        for item in items:
            if item.handler is not None and item.key is not None and item.outcome in _CALLED:
                self._seen.append((now, item.handler.name, item.key, item.outcome is Outcome.HANDLER_ERROR))
        for name, item in failed.items():
            if self._is_outage(name):
                self._open(item)

    def _is_outage(self, handler: str) -> bool:
        keys = {key for _, name, key, is_failed in self._seen if name == handler and is_failed}
        others = {key for _, name, key, _ in self._seen if name == handler} - keys
        return 0 < self._keys <= len(keys) and len(keys) >= SHARE * (len(keys) + len(others))

    def _open(self, item: Item) -> None:
        """Open, if it is not open. Raises: OutageError."""
        if self.outage is None:
            assert item.handler is not None
            self.outage = Outage(item.handler.name, str(item.error), time.time())
            self._seen.clear()
            self._silent_since = None
            self._probe_at = self._clock() + self._backoff.next_seconds()
            logger.error(
                "a handler meets an outage, its partitions wait",
                subscription=self._subscription,
                handler=self.outage.handler,
                error=self.outage.error,
            )
        raise OutageError

    def seconds_to_probe(self) -> float:
        """Return how long it is until the next probe."""
        return max(0.0, self._probe_at - self._clock())

    def take_probe(self) -> bool:
        """Return whether the caller runs the next probe; another one is due after a while, whatever became of it."""
        if self.seconds_to_probe() > 0:
            return False
        self._probe_at = self._clock() + self._backoff.next_seconds()
        return True

    def probed(self, items: Iterable[Item]) -> None:
        """Note what became of a probe: close if an event of the handler was applied, or it has none any more."""
        if self.outage is None:
            return
        ran = {item.outcome for item in items if item.handler is not None and item.handler.name == self.outage.handler}
        now = self._clock()
        silent_since = None if Outcome.HANDLER_ERROR in ran else self._silent_since or now
        is_silent = silent_since is not None and now - silent_since >= SILENT_SECONDS
        self._silent_since = silent_since
        if Outcome.APPLIED in ran or Outcome.SKIPPED_BY_HANDLER in ran or is_silent:
            seconds = round(time.time() - self.outage.since, 1)
            logger.info(
                "the outage of a handler is over",
                subscription=self._subscription,
                handler=self.outage.handler,
                seconds=seconds,
            )
            self.outage = None
            self._backoff.reset()
        elif Outcome.HANDLER_ERROR not in ran:
            self._probe_at = now  # nothing was learnt: the next event tells


def _kind(item: Item, policy_of: PolicyOf) -> ErrorKind | None:
    """Return what the failure of an item means; None if it is meant for this event alone."""
    cause = item.error.__cause__ if item.error is not None else None
    if item.handler is None or cause is None or isinstance(cause, HandlerVerdict):
        return None
    kind = policy_of(item.handler).kind_of(cause)
    return kind if kind != "permanent" else None
