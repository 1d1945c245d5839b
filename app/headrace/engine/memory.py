"""What the owner of a partition keeps in memory: loaded at the claim, kept in step by each commit."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from headrace.effects.calls import Calls
from headrace.engine.effects import Effects
from headrace.engine.lanes import Lanes, PolicyOf
from headrace.handlers.subscription import Handler
from headrace.item import Item, Outcome
from headrace.ledger.moves import NOTHING, Quiet
from headrace.ledger.window import DedupeWindow
from headrace.order.declared import InSequence, Order
from headrace.settings import EngineSettings
from headrace.state.cache import StateCache
from headrace.state.codec import StateType
from headrace.timers.clock import TimerClock


class PartitionMemory:
    """What is known of one partition number: dedupe windows (by topic), state caches (by state), lanes, next timer,
    calls to the outside."""

    def __init__(
        self,
        settings: EngineSettings,
        states: Mapping[str, StateType],
        policy_of: PolicyOf,
        lanes_changed: Callable[[], None] = lambda: None,
        order: Order | None = None,
    ) -> None:
        self.windows: dict[str, DedupeWindow] = {}
        self._states, self._cache_keys = states, settings.state_cache_keys
        self.caches = self.new_caches()
        """Those of the batches: no run of a lane uses them."""
        self.lanes = Lanes(policy_of, lanes_changed, is_in_sequence=isinstance(order, InSequence))
        self.timers = TimerClock()
        self.calls = Calls()
        self.quiet: dict[str, Quiet] = {}
        """By topic: the events that were applied before a person rewound the claim."""

    def new_caches(self) -> dict[str, StateCache]:
        """Return a cache for each state."""
        return {name: StateCache(state, self._cache_keys) for name, state in self._states.items()}

    def follow(self, topic: str, effects: Effects, caches: Mapping[str, StateCache] | None = None) -> None:
        """Follow what was committed; `caches` are those of its run if it had some of its own."""
        self.windows[topic].add(effects.identities, effects.marks, time.time())
        for state, rows in effects.states.items():
            cache = self.caches[state]
            if caches is not None and caches is not self.caches:
                cache.forget([row[0] for row in rows])  # what a lane has made of them is not known here
                continue
            for key, version, raw in rows:
                if (entry := cache.entries.get(key)) is not None:
                    entry.version, entry.raw = version, raw
            cache.wrote((row[0] for row in rows), effects.made_at)
            cache.trim(row[0] for row in rows)
        self.lanes.follow(effects.lanes, effects.closed, effects.parked)
        self.timers.follow(effects.next_timer_seconds)
        if effects.started:
            self.calls.push(effects.started)
        self.forget(effects.strays)

    def calling(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return the items whose effects may be started: those that are not applied for a second time."""
        if not self.quiet:
            return items
        return [
            item for item in items if not self.quiet.get(item.record.topic, NOTHING).is_second_run(item.record.offset)
        ]

    def forget(self, keys: Collection[str]) -> None:
        """Drop the keys' states, so that they are read again from Postgres."""
        for cache in self.caches.values():
            cache.forget(keys)


def keys_by_state(items: Sequence[Item], outcome: Outcome, states: Iterable[str]) -> dict[str, set[str]]:
    """Return the keys whose state the items' handlers take, by state, of the items with that outcome."""
    keys: dict[str, set[str]] = {name: set() for name in states}
    taking: dict[tuple[str, ...], set[Handler]] = {}
    for handler in {item.handler for item in items} - {None}:
        assert handler is not None
        taking.setdefault(handler.state_names, set()).add(handler)
    for names, handlers in taking.items():
        of_these = items if len(taking) == 1 else [item for item in items if item.handler in handlers]
        taken = {item.key for item in of_these if item.outcome is outcome}
        taken.discard(None)  # that of items without a handler
        for name in names:
            keys[name] |= taken  # type: ignore[arg-type]
    return keys
