"""Replays dead letters, since a person asked for it: they are parked, due at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from uuid import UUID

import msgspec

from headrace import sql
from headrace.engine.batch import Batch, BatchProcessor, Holding, is_large
from headrace.engine.decode import decoded
from headrace.engine.effects import Effects
from headrace.engine.lanes import Lane
from headrace.engine.settle import settle
from headrace.engine.transact import transact
from headrace.errors import BatchTooLargeError, DataRefusedError
from headrace.item import DEAD, Item, Outcome
from headrace.ledger.dead_letters import EMIT_REFUSED, Replay
from headrace.ledger.rows import Kind, true_offset
from headrace.log.ports import NewRecord
from headrace.log.stored import plain


class Replays:
    """The replays of one partition number."""

    def __init__(self, processor: BatchProcessor) -> None:
        self._processor = processor

    async def replay(self, holding: Holding, replays: Sequence[Replay]) -> None:
        """Park the replays' events, due at once, in one transaction.

        An event that still cannot be read, one that Postgres refuses, and one that was applied or parked from another
        offset meanwhile, stays a dead letter with the new reason; so does the second copy of an event among the
        replays. Only letters that are still to be replayed are taken (test_replay_that_is_seen_twice_is_applied_once).
        Raises: StateUnavailableError, SchemaRegistryError, FencedError.
        """
        try:
            await self._replay(holding, replays, "")
        except (DataRefusedError, BatchTooLargeError) as error:
            if len(replays) == 1:
                await self._replay(holding, replays, plain(str(error.__cause__ or error)))
                return
            half = len(replays) // 2
            await self.replay(holding, replays[:half])
            await self.replay(holding, replays[half:])

    async def _replay(self, holding: Holding, replays: Sequence[Replay], refusal: str) -> None:
        """Park the replays' events; if there is a `refusal`, all of them stay dead letters for that reason."""
        size = sum([len(replay.record.value or b"") for replay in replays])
        batch = Batch(Kind.REPLAY, holding, len(replays), size, list)

        async def attempt(batch: Batch) -> Effects:
            return await self._attempt_replay(batch, replays, refusal)

        await transact(self._processor, batch, attempt)

    async def _attempt_replay(self, batch: Batch, replays: Sequence[Replay], refusal: str) -> Effects:
        processor, holding = self._processor, batch.holding
        window = processor.memory.windows[holding.claim.partition.topic].marks
        readable, refused = await self._judge(batch, replays, refusal)
        await processor.take_turn(batch)
        effects = Effects(Kind.REPLAY, [], batch.next_offset, batch.last)
        async with processor.context.transaction() as connection:
            if refused:
                await connection.execute(sql.dead_letter.REOPEN_REPLAYS, *map(list, zip(*refused, strict=True)))
            taken = {row["id"] for row in await connection.fetch(sql.dead_letter.SETTLE_REPLAYS, list(readable))}
            emitted = {replay.id for replay in replays if replay.reason == EMIT_REFUSED}
            effects.emits = [(item, _new(item)) for id_, item in readable.items() if id_ in taken & emitted]
            effects.items = [item for id_, item in readable.items() if id_ in taken - emitted]
            for item in effects.items:
                item.outcome = Outcome.BEHIND_KEY
            settle(effects, processor.memory.lanes)
            effects.seen = [item for item in effects.seen if item.identity not in window]
            effects.lanes = self._due_lanes(effects)
            await processor.write(connection, batch, effects)
        processor.remember(batch, effects)
        return effects

    async def _judge(
        self, batch: Batch, replays: Sequence[Replay], refusal: str
    ) -> tuple[dict[UUID, Item], list[tuple[UUID, str]]]:
        """Return the items that can be replayed, and why the others cannot."""
        if refusal:
            return {}, [(replay.id, refusal) for replay in replays]
        known = dict[bytes, int]()
        window = self._processor.memory.windows[batch.holding.claim.partition.topic].marks
        readable: dict[UUID, Item] = {}
        refused: list[tuple[UUID, str]] = []
        for replay, item in zip(replays, await self._decode_replays(batch, replays), strict=True):
            if replay.reason == EMIT_REFUSED:
                readable[replay.id] = item
                continue
            reason = _refusal(item, window.get(item.identity, known.get(item.identity)), replay.reason)
            if reason is not None:
                refused.append((replay.id, plain(reason)))
            else:
                readable[replay.id] = item
                known.setdefault(item.identity, item.mark)
        return readable, refused

    async def _decode_replays(self, batch: Batch, replays: Sequence[Replay]) -> list[Item]:
        decoder = self._processor.decoder

        def decode() -> list[Item]:
            items = [decoder.decode([replay.record], {})[0] for replay in replays]
            for replay, item in zip(replays, items, strict=True):
                if replay.original is not None:
                    # The mark tells what the log has, so that a copy of it is a duplicate and no conflict, though it
                    # differs from what was made of it. What could not be read at all has no mark.
                    item.mark = decoder.decode([replay.original], {})[0].mark or item.mark
            return items

        large = is_large(batch.records, batch.bytes)
        return await decoded(lambda: self._processor.off_loop(decode, large=large))

    def _due_lanes(self, effects: Effects) -> dict[str, Lane]:
        """Return the items' lanes, due at once; a key that is held stays so, with the replayed event in its place.

        Its lane is not written: an operator may have let it go on, which is not known here yet.
        """
        lanes = self._processor.memory.lanes
        now, known = lanes.now(), lanes.by_key
        opened: dict[str, Lane] = {}
        for item in effects.items:
            assert item.key is not None
            kept = known.get(item.key)
            if kept is None:
                opened[item.key] = Lane(due=now, since=now, error="replayed", arrival=effects.lanes[item.key].arrival)
            elif not kept.is_gap and kept.due < math.inf:
                opened[item.key] = msgspec.structs.replace(kept, due=now)
        return opened


def _refusal(item: Item, mark: int | None, reason: str) -> str | None:
    """Return why the event cannot be replayed, or None. `mark` is what is known of its identity."""
    if item.outcome in DEAD or item.key is None:
        return str(item.error or "no handler of this subscription takes the event")
    if mark is not None and mark < 0 and reason == Outcome.GAVE_UP.value:
        return None  # known from before there were marks: the event itself, which entered the window when it was parked
    taken = true_offset(mark >> 32) if mark is not None else item.record.offset
    if taken != item.record.offset:
        return (
            f"an event with the same source, type and id was taken at offset {taken} of {item.record.topic}/"
            f"{item.record.partition}; discard this one, or publish it again under another id."
        )
    return None


def _new(item: Item) -> NewRecord:
    record = item.record
    return NewRecord(record.topic, record.key, record.value, [(name, value or b"") for name, value in record.headers])
