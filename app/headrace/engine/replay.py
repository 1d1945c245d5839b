"""Takes dead letters up again that a person wants replayed: each joins its key's lane, behind what waits there."""

from __future__ import annotations

import time
from collections.abc import Sequence

from headrace.dead_letters.store import REOPEN, SETTLE
from headrace.engine.batch import Source
from headrace.engine.commit import BATCH, Effects, write_effects
from headrace.engine.context import EngineContext
from headrace.engine.lanes import Lane, Lanes
from headrace.engine.memory import PartitionMemory
from headrace.engine.read import RecordReader
from headrace.item import DEAD, Item, Outcome
from headrace.log.ports import StoredRecord
from headrace.log.stored import plain

Replay = tuple[object, StoredRecord]
"""(id of the dead letter, its record)."""


async def take_replays(
    context: EngineContext, reader: RecordReader, source: Source, memory: PartitionMemory, replays: Sequence[Replay]
) -> None:
    """Park the replays' events, due at once; one that still cannot be read stays a dead letter, with the new reason.

    What was seen a moment ago may have been taken up since: only rows still open are
    (test_replay_that_is_seen_twice_is_applied_once). Raises: StateError, FencedError.
    """
    readable: dict[object, Item] = {}
    failed: list[tuple[object, str]] = []
    for identity, record in replays:
        item = reader.read([record], frozenset())[0]
        if item.outcome in DEAD or item.key is None:
            failed.append((identity, plain(str(item.error or "no handler of this subscription takes the event"))))
        else:
            readable[identity] = item
    effects = Effects(BATCH, [], source.claim.next_offset, source.claim.last)
    async with context.connection() as connection, connection.transaction(isolation="read_committed"):
        if failed:
            await connection.execute(REOPEN, *map(list, zip(*failed, strict=True)))
        open_still = {row["id"] for row in await connection.fetch(SETTLE, list(readable))}
        effects.parked = [item for identity, item in readable.items() if identity in open_still]
        effects.lanes = _lanes_behind(effects.parked, memory.lanes)
        through = source.relay.through(source.claim.sequence, emits=False)
        await write_effects(connection, source.claim, effects, source.claim.sequence, through)
    memory.lanes.take_in(effects.lanes, (), effects.parked)


def _lanes_behind(items: Sequence[Item], lanes: Lanes) -> dict[str, Lane]:
    """Number the items behind all that waits; return their keys' lanes, due at once."""
    now, opened = time.time(), dict[str, Lane]()
    for number, item in enumerate(items, start=lanes.next_number):
        assert item.key is not None
        item.outcome, item.number = Outcome.BEHIND_KEY, number
        kept = lanes.by_key.get(item.key)
        lane = opened.setdefault(item.key, kept or Lane(due=now, since=now, error="replayed"))
        lane.due = now
    return opened
