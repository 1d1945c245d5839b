"""Compares what the owner of a partition remembers of states with what Postgres holds."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterable
from typing import NamedTuple

from headrace import sql
from headrace.audit.findings import OF_MEMORY, Finding
from headrace.engine.context import EngineContext
from headrace.engine.tenure import Tenure
from headrace.state.cache import StateCache, StoredState
from headrace.state.store import read

KEYS = 500
"""States of one partition that are compared, drawn by lot."""
ATTEMPTS = 5
"""Readings until one falls between two batches."""


class Known(NamedTuple):
    """A state as its owner knew it."""

    raw: bytes
    version: int
    ends_at: float | None
    """When it expires, as `time.monotonic()` tells."""


class Remembered(NamedTuple):
    """What an owner knew at one moment, between two batches."""

    sequences: dict[str, int]
    """By topic, the last ledger row of its claim."""
    states: dict[str, dict[str, Known]]
    """By state and key."""


async def audit_memory(context: EngineContext, group: str, partition: int, tenure: Tenure) -> list[Finding]:
    """Return the states of a tenure that are not as the database has them; nothing if batches never let it look."""
    for _ in range(ATTEMPTS):
        remembered = _remember(tenure)
        async with (
            context.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            rows = await connection.fetch(sql.claim.SEQUENCES, group, partition)
            stored = {
                state: await read(connection, group, state, list(keys)) for state, keys in remembered.states.items()
            }
        if {row["topic"]: row["sequence"] for row in rows if row["topic"] in tenure.holdings} == remembered.sequences:
            return [
                Finding(OF_MEMORY, None, partition, detail)
                for state, found in stored.items()
                for detail in _differences(tenure.memory.caches[state], remembered.states[state], found)
            ]
    return []


def _remember(tenure: Tenure) -> Remembered:
    """Copy without giving control away: versions and sequences of one moment."""
    states = {}
    for name, cache in tenure.memory.caches.items():
        keys = random.sample(list(cache.entries), min(KEYS, len(cache.entries)))
        entries = cache.entries
        states[name] = {key: Known(entries[key].raw, entries[key].version, cache.ends_at(key)) for key in keys}
    sequences = {topic: holding.claim.sequence for topic, holding in tenure.holdings.items()}
    return Remembered(sequences, states)


def _differences(cache: StateCache, known: dict[str, Known], stored: Iterable[StoredState]) -> list[str]:
    """Compare what has not expired: of the rest, the owner reads anew what it needs."""
    name, now = cache.state.name, time.monotonic()
    lasting = [(row, known[row.key]) for row in stored if (known[row.key].ends_at or math.inf) > now]
    return [
        f"the {name} of {row.key!r} is version {row.version}, but its owner remembers version {owned.version}."
        if row.version != owned.version
        else f"the {name} of {row.key!r} (version {row.version}) has another value than its owner remembers."
        for row, owned in lasting
        if row.version != owned.version or not _is_equal(cache, row.raw, owned.raw)
    ]


def _is_equal(cache: StateCache, stored: bytes, raw: bytes) -> bool:
    """Compare values and not bytes: Postgres has an order of its own for the members of an object."""
    if not stored or not raw:
        return stored == raw
    try:
        return bool(cache.state.decode(stored) == cache.state.decode(raw))
    except Exception:  # whatever the class raises: it cannot read what is there now
        return False
