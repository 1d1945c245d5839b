"""Runs parked events again: lanes that are due, and dead letters that a person asked to replay."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

import msgspec

from headrace import sql
from headrace.engine.batch import Batch, BatchProcessor, Holding, is_large
from headrace.engine.effects import Effects
from headrace.engine.lanes import Lane, count_runs, read_heads
from headrace.engine.log_batches import KILLED
from headrace.engine.settle import settle
from headrace.engine.transact import transact
from headrace.engine.verdict import Park
from headrace.errors import BatchTooLargeError, DataRefusedError, HandlerError
from headrace.item import DEAD, SKIPPED, Item, Outcome
from headrace.ledger.dead_letters import EMIT_REFUSED, Replay
from headrace.ledger.rows import Kind
from headrace.log.ports import NewRecord, StoredRecord
from headrace.log.stored import plain

MOST_LANES, MOST_EVENTS = 200, 100
"""Lanes, and events of each, in one run."""


class Hung(NamedTuple):
    """An event of a lane whose handler did not return: its number, and the error that says so."""

    number: int
    error: str


class Retries:
    """The lanes and replays of one partition number. `hung` are the events, by key, that did not return."""

    def __init__(self, processor: BatchProcessor, hung: dict[str, Hung]) -> None:
        self._processor = processor
        self._hung = hung
        self._refused: dict[str, str] = {}
        """Keys whose head Postgres refused, alone in its run, with the error."""
        self._lanes_limit, self._events_limit = MOST_LANES, MOST_EVENTS

    async def retry_due(self, holding: Holding, *, is_cautious: bool) -> bool:
        """Run the lanes that are due, in one transaction. Returns False if none was.

        `is_cautious`: a single event, since an event of a lane may have ended the previous owner.
        Raises: StateUnavailableError, FencedError.
        """
        processor, lanes = self._processor, self._processor.memory.lanes
        due = lanes.due(time.time(), 1 if is_cautious else self._lanes_limit)
        if not due:
            return False
        async with processor.context.connection() as connection:
            parked = await read_heads(
                connection,
                processor.subscription.group,
                processor.partition,
                due,
                events=1 if is_cautious else self._events_limit,
                max_bytes=processor.context.settings.engine.batch_bytes,
            )
        keys = list(dict.fromkeys(key for key, _, _ in parked))
        await self._count(holding, keys)
        claim = holding.claim
        size = sum([len(record.value or b"") for _, _, record in parked])
        batch = Batch(
            Kind.RETRY, holding, len(parked), size, lambda: self._decode(parked), claim.next_offset, claim.last
        )
        processor.is_careful = True
        try:
            await transact(processor, batch)
        except (DataRefusedError, BatchTooLargeError) as error:
            self._shrink(keys, len(parked), plain(str(error.__cause__ or error)))
        else:
            self._lanes_limit = min(MOST_LANES, self._lanes_limit * 2)
            self._events_limit = min(MOST_EVENTS, self._events_limit * 2)
            for key in keys:
                self._hung.pop(key, None)
                self._refused.pop(key, None)
        return True

    async def _count(self, holding: Holding, keys: Sequence[str]) -> None:
        """Count a run of the heads before it starts, so that an event that ends its process comes to an end as well."""
        processor, lanes = self._processor, self._processor.memory.lanes.by_key
        counted = {key for key in keys if lanes[key].is_counted or self._has_hung(key)}
        fresh = {key: lanes[key].attempts + 1 for key in keys if key not in counted}
        if not fresh:
            return
        async with processor.context.transaction() as connection:
            await holding.claim.guard(connection)
            await count_runs(connection, processor.subscription.group, processor.partition, fresh)
        for key, attempts in fresh.items():
            lanes[key].attempts, lanes[key].is_counted = attempts, True

    def _decode(self, parked: Sequence[tuple[str, int, StoredRecord]]) -> list[Item]:
        lanes = self._processor.memory.lanes
        records = [record for _, _, record in parked]
        try:
            items = self._processor.decoder.decode(records, {})
        except MemoryError:
            if len(parked) > 1 or parked[0][0] not in self._refused:
                raise
            items = [Item(records[0])]  # its run fails below, for the same reason
        heads: set[str] = set()
        failed: set[str] = set()
        for item, (key, number, _) in zip(items, parked, strict=True):
            item.number, item.key, item.attempt = number, key, lanes.by_key[key].attempts
            if item.outcome in SKIPPED:
                continue
            reason = self._failure(item, key, is_head=key not in heads)
            heads.add(key)
            if key in failed:
                item.outcome = Outcome.BEHIND_KEY
            elif reason is not None:
                failed.add(key)
                item.failed(Outcome.HANDLER_ERROR, HandlerError(reason, ""))
        return items

    def _failure(self, item: Item, key: str, *, is_head: bool) -> str | None:
        """Return why an event of a lane is not run, or None."""
        if (hung := self._hung.get(key)) is not None and hung.number == item.number:
            return hung.error
        if not is_head:
            return None
        if key in self._refused:
            return self._refused[key]
        lanes = self._processor.memory.lanes
        return KILLED if lanes.by_key[key].attempts > lanes.policy_of(item.handler).attempts else None

    def _has_hung(self, key: str) -> bool:
        """Return whether the head of the lane did not return."""
        hung, lane = self._hung.get(key), self._processor.memory.lanes.by_key[key]
        return hung is not None and hung.number == lane.head

    def _shrink(self, keys: Sequence[str], events: int, reason: str) -> None:
        """Take fewer lanes, then fewer events, until the one event is found that is at fault."""
        if len(keys) > 1:
            self._lanes_limit = len(keys) // 2
        elif events > 1:
            self._events_limit = events // 2
        else:
            if keys[0] in self._refused:  # not even its failure can be written: not at once again
                lanes = self._processor.memory.lanes
                lane = lanes.by_key[keys[0]]
                policy, attempts = lanes.policy_of(None), max(1, lane.attempts)
                lane.due = lanes.due_after(Park(attempts, policy.delay(attempts), policy.jitter))
            self._refused[keys[0]] = reason

    async def replay(self, holding: Holding, replays: Sequence[Replay]) -> None:
        """Park the replays' events, due at once, in one transaction.

        An event that still cannot be read, one that Postgres refuses, and one that was applied or parked from another
        offset meanwhile, stays a dead letter with the new reason; so does the second copy of an event among the
        replays. Only letters that are still to be replayed are taken (test_replay_that_is_seen_twice_is_applied_once).
        Raises: StateUnavailableError, FencedError.
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
        claim = holding.claim
        size = sum([len(replay.record.value or b"") for replay in replays])
        batch = Batch(Kind.REPLAY, holding, len(replays), size, list, claim.next_offset, claim.last)

        async def attempt(batch: Batch) -> Effects:
            return await self._attempt_replay(batch, replays, refusal)

        await transact(self._processor, batch, attempt)

    async def _attempt_replay(self, batch: Batch, replays: Sequence[Replay], refusal: str) -> Effects:
        processor, holding = self._processor, batch.holding
        window = processor.memory.windows[holding.claim.partition.topic].marks
        readable, refused = await self._judge(batch, replays, refusal)
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
            effects.lanes = self._due_lanes(effects.items)
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

        return await self._processor.off_loop(decode, large=is_large(batch.records, batch.bytes))

    def _due_lanes(self, items: Sequence[Item]) -> dict[str, Lane]:
        """Return the items' lanes, due at once; a key that is held stays so, with the replayed event behind."""
        now, known = time.time(), self._processor.memory.lanes.by_key
        opened: dict[str, Lane] = {}
        for item in items:
            assert item.key is not None
            kept = known.get(item.key)
            if kept is None:
                opened[item.key] = Lane(due=now, since=now, error="replayed")
            else:
                opened[item.key] = msgspec.structs.replace(kept, due=now if kept.due < math.inf else kept.due)
        return opened


def _refusal(item: Item, mark: int | None, reason: str) -> str | None:
    """Return why the event cannot be replayed, or None. `mark` is what is known of its identity."""
    if item.outcome in DEAD or item.key is None:
        return str(item.error or "no handler of this subscription takes the event")
    if mark is not None and mark < 0 and reason == Outcome.GAVE_UP.value:
        return None  # known from before there were marks: the event itself, which entered the window when it was parked
    if mark is not None and mark >> 32 != item.record.offset:
        return (
            f"an event with the same source, type and id was taken at offset {mark >> 32} of {item.record.topic}/"
            f"{item.record.partition}; discard this one, or publish it again under another id."
        )
    return None


def _new(item: Item) -> NewRecord:
    record = item.record
    return NewRecord(record.topic, record.key, record.value, [(name, value or b"") for name, value in record.headers])
