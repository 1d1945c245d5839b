"""What the owner of a partition keeps in memory: loaded at the claim, kept in step by each commit."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import asyncpg

from headrace.engine.commit import Effects
from headrace.engine.dedupe import IDENTITY_BYTES, DedupeWindow
from headrace.engine.lanes import Lanes
from headrace.log.ports import TopicPartition
from headrace.settings import EngineSettings
from headrace.state.cache import StateCache
from headrace.state.codec import StateType

IDS = """
select sequence, ids, extract(epoch from committed_at)::float8 as at from headrace.ledger
where subscription = $1 and topic = $2 and partition = $3 and sequence < $4 and length(ids) > 0
order by sequence desc limit $5
"""
FEW_ROWS, MANY_ROWS = 50, 5_000


class PartitionMemory:
    """Dedupe windows (by topic), state caches (by state) and lanes of one partition number of one subscription."""

    def __init__(self, settings: EngineSettings, states: Mapping[str, StateType]) -> None:
        self._settings = settings
        self.windows: dict[str, DedupeWindow] = {}
        self.caches = {name: StateCache(state, settings.state_cache_keys) for name, state in states.items()}
        self.lanes = Lanes(settings)

    async def load_window(
        self, connection: asyncpg.Connection[Any], subscription: str, source: TopicPartition, sequence: int
    ) -> None:
        """Read the ids of the newest ledger rows until the window is full; few rows at a time where they are large."""
        packed: list[tuple[bytes, float]] = []
        wanted, before, limit = self._settings.dedupe_window_ids * IDENTITY_BYTES, sequence + 1, FEW_ROWS
        while wanted > 0:
            rows = await connection.fetch(IDS, subscription, *source, before, limit)
            packed += [(row["ids"], row["at"]) for row in rows]
            if len(rows) < limit:
                break
            size = sum(len(row["ids"]) for row in rows)
            wanted, before = wanted - size, rows[-1]["sequence"]
            limit = min(MANY_ROWS, max(FEW_ROWS, wanted * len(rows) // size + 1))
        window = DedupeWindow(self._settings.dedupe_window_ids)
        for ids, at in reversed(packed):
            window.add_packed(ids, at)
        self.windows[source.topic] = window

    def take_in(self, topic: str, effects: Effects) -> None:
        """Follow what was committed."""
        self.windows[topic].add(effects.identities, time.time())
        for state, rows in effects.states.items():
            cache = self.caches[state]
            for key, version, data in rows:
                if (entry := cache.entries.get(key)) is not None:
                    entry.version, entry.raw = version, data.encode()
            cache.trim([row[0] for row in rows])
        self.lanes.take_in(effects.lanes, effects.closed, effects.parked)

    def forget(self, keys: set[str]) -> None:
        """Drop the keys' states, so that they are read again."""
        for cache in self.caches.values():
            cache.forget(keys)
