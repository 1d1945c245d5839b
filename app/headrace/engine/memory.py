"""What the owner of a partition keeps in memory: loaded at the claim, kept in step by each commit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from headrace.effects.calls import Calls
from headrace.engine.effects import Effects
from headrace.engine.lanes import Lanes
from headrace.handlers.policy import Policy
from headrace.handlers.subscription import Handler
from headrace.ledger.window import DedupeWindow
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
        policy_of: Callable[[Handler | None], Policy],
    ) -> None:
        self.windows: dict[str, DedupeWindow] = {}
        self.caches = {name: StateCache(state, settings.state_cache_keys) for name, state in states.items()}
        self.lanes = Lanes(policy_of)
        self.timers = TimerClock()
        self.calls = Calls()

    def follow(self, topic: str, effects: Effects) -> None:
        """Follow what was committed."""
        seen = effects.seen
        self.windows[topic].add([item.identity for item in seen], [item.mark for item in seen], time.time())
        for state, rows in effects.states.items():
            cache = self.caches[state]
            for key, version, data in rows:
                if (entry := cache.entries.get(key)) is not None:
                    entry.version, entry.raw = version, data.encode()
            cache.trim([row[0] for row in rows])
        self.lanes.follow(effects.lanes, effects.closed, effects.parked)
        self.timers.follow(effects.next_timer_seconds)
        if effects.started:
            self.calls.push(effects.started)
        self.forget(effects.strays)

    def forget(self, keys: Iterable[str]) -> None:
        """Drop the keys' states, so that they are read again from Postgres."""
        for cache in self.caches.values():
            cache.forget(keys)
