"""What the owner of a partition keeps in memory, loaded at the claim."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import asyncpg

from headrace.engine.dedupe import IDENTITY_BYTES, DedupeWindow
from headrace.engine.lanes import Lanes
from headrace.log.ports import TopicPartition
from headrace.settings import EngineSettings
from headrace.state.cache import StateCache
from headrace.state.codec import StateType

IDS = """
select sequence, ids, extract(epoch from committed_at)::float8 as at from headrace.ledger
where subscription = $1 and topic = $2 and partition = $3 and sequence < $4 and length(ids) > 0
order by sequence desc limit 50
"""


class PartitionMemory:
    """Dedupe windows (by topic), state caches (by state) and lanes of one partition number of one subscription."""

    def __init__(self, settings: EngineSettings, states: Mapping[str, StateType]) -> None:
        self._settings = settings
        self.windows: dict[str, DedupeWindow] = {}
        self.caches = {name: StateCache(state, settings.state_cache_keys) for name, state in states.items()}
        self.lanes = Lanes(settings)
        self.tokens: dict[str, object] = {}
        """The claim token under which each topic was held; memory is good while nobody claimed in between."""

    async def load_window(
        self, connection: asyncpg.Connection[Any], subscription: str, source: TopicPartition, sequence: int
    ) -> None:
        """Read the ids of the newest ledger rows until the window is full."""
        packed: list[tuple[bytes, float]] = []
        wanted = self._settings.dedupe_window_ids * IDENTITY_BYTES
        before = sequence + 1
        while wanted > 0:
            rows = await connection.fetch(IDS, subscription, *source, before)
            if not rows:
                break
            for row in rows:
                packed.append((row["ids"], row["at"]))
                wanted -= len(row["ids"])
                before = row["sequence"]
                if wanted <= 0:
                    break
        window = DedupeWindow(self._settings.dedupe_window_ids)
        for ids, at in reversed(packed):
            window.add_packed(ids, at)
        self.windows[source.topic] = window
