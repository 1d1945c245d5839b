"""Runs today's handlers over yesterday's events beside the service, and says what would be different."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from headrace import sql
from headrace.database.pool import Connection
from headrace.errors import ConfigurationError
from headrace.handlers.subscription import Subscription
from headrace.item import Item, Outcome
from headrace.log.ports import Log, Record, TopicPartition, position_of
from headrace.projections.projection import Projection
from headrace.rebuild.reading import LogReading
from headrace.rebuild.replay import Letters
from headrace.registry import Registry
from headrace.rewind.by_time import ByTime
from headrace.rewind.difference import Difference, Raised, compare
from headrace.rewind.emitted import Emitted, known_from, total
from headrace.rewind.plan import Move, Target, find_moves, refuse_unknown_order
from headrace.rewind.rehearsal import Heard, Place, Rehearsal, Report
from headrace.rewind.states import read
from headrace.settings import Settings

STEP_KEYS = 5_000
"""States that are compared at a time."""


async def dry_run(
    connection: Connection,
    log: Log,
    registry: Registry,
    subscription: Subscription,
    settings: Settings,
    target: Target,
    report: Report = lambda done, total: None,
) -> Difference:
    """Return what would be different if the events since the target were applied by this code; changes nothing.

    Keys that have events since are run from their beginning on, since nobody keeps what their states were. Lanes and
    open dead letters since the target are run as well; what was discarded is not. Events of several topics run in the
    order of the log's times.
    Raises: ConfigurationError (it cannot be known, why, and what to do), HandlerError (a handler does not return),
    TransportError.
    """
    refuse_unseen(subscription)
    if subscription.states:
        await refuse_unknown_order(connection, subscription)
    moves = await find_moves(connection, log, subscription, target)
    difference = Difference(subscription.group, offsets=sum(move.claimed - move.offset for move in moves))
    if not moves:
        return difference
    work = _DryRun(log, subscription, moves, Rehearsal(registry, subscription, settings), difference, report)
    try:
        await work.prepare(connection, await known_from(connection, subscription.group))
        await work.run(connection)
    finally:
        await work.close()
    return difference


def refuse_unseen(subscription: Subscription) -> None:
    """Refuse a subscription whose handlers do what cannot be seen from outside. Raises: ConfigurationError."""
    name = subscription.name
    if isinstance(subscription, Projection):
        raise ConfigurationError(
            f"{name!r} is a projection; headrace rebuild makes its table beside the one in use, so compare the two."
        )
    writers = [each.name for each in subscription.handlers.values() if each.signature.wants_transaction]
    if writers:
        raise ConfigurationError(
            f"{name!r}: {writers[0]} takes a Transaction, and a dry run lends none, since its SQL would meet today's "
            "tables; try it with headrace.testing, or move the SQL into a subscription of its own."
        )
    for state in subscription.states.values():
        if state.keeping.ttl is not None:
            raise ConfigurationError(
                f"{name!r}: states of {state.model.__name__} expire, and the log does not tell when, so they cannot be "
                "compared; try the handlers with headrace.testing."
            )


class _DryRun:
    def __init__(
        self,
        log: Log,
        subscription: Subscription,
        moves: Sequence[Move],
        rehearsal: Rehearsal,
        difference: Difference,
        report: Report,
    ) -> None:
        self._log = log
        self._subscription = subscription
        self._rehearsal = rehearsal
        self._difference = difference
        self._report = report
        self._moves = {move.place: move for move in moves}
        self._begins = {move.place: move.begun if subscription.states else move.offset for move in moves}
        numbers = {move.place.partition for move in moves}
        behind = {move.place.partition for move in moves if move.offset > self._begins[move.place]}
        self._whole = numbers - behind
        """Partitions of which every key is run."""
        self._keys: dict[int, set[str]] = {number: set() for number in numbers}
        """By partition, since a key has the same one in each topic."""
        difference.topics = len({move.place.topic for move in moves}) if subscription.states else 1
        self._emitted: dict[TopicPartition, Emitted] = {}
        self._failed: dict[Place, Item] = {}
        self._succeeded: set[Place] = set()
        self._failed_then: set[Place] = set()
        self._done = 0
        self._total = sum(move.claimed - self._begins[move.place] for move in moves)
        self._reading: LogReading | None = None
        self._merged: ByTime | None = None

    async def prepare(self, connection: Connection, known: Mapping[TopicPartition, int]) -> None:
        """Find the keys that have events since, and what stays out."""
        group, rehearsal = self._subscription.group, self._rehearsal
        self._emitted = {place: Emitted(move, known.get(place, 0)) for place, move in self._moves.items()}
        letters = await connection.fetch(sql.dead_letter.PLACES, group)
        rehearsal.letters = Letters([row for row in letters if self._counts(row)])
        self._failed_then = await self._failing(connection)
        rehearsal.waiting = self._failed_then
        rehearsal.parked = {place for place in self._failed_then if self._is_before(place)}
        ranges = {
            place: (move.offset, move.claimed)
            for place, move in self._moves.items()
            if place.partition not in self._whole and move.offset < move.claimed
        }
        self._total += sum(end - begin for begin, end in ranges.values())
        async for place, records, left in read(self._log, ranges):
            items = await rehearsal.keys(records)
            self._keys[place.partition].update(item.key for item in items if item.key is not None)
            self._done = sum(end - begin for begin, end in ranges.values()) - left
            self._report(self._done, self._total)
        self._reading = await LogReading.start(self._log, self._begins)
        self._merged = ByTime(self._reading)

    async def run(self, connection: Connection) -> None:
        """Run up to the claims, then up to those of a snapshot, whose states are compared."""
        await self._run_up_to({place: move.claimed for place, move in self._moves.items()})
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            rows = await connection.fetch(sql.claim.POSITIONS, self._subscription.group)
            claims = {TopicPartition(row["topic"], row["partition"]): row["next_offset"] for row in rows}
            await self._run_up_to({place: claims.get(place, 0) for place in self._moves})
            self._judge(await self._failing(connection))
            await self._compare(connection)
            found = [await each.compare(connection, self._subscription.group) for each in self._emitted.values()]
            if not self._rehearsal.gaps:
                self._difference.emits = total(found)

    async def close(self) -> None:
        """Let the log and the thread go."""
        self._rehearsal.close()
        if self._reading is not None:
            await self._reading.close()

    def _counts(self, letter: Any) -> bool:
        """True if what was decided about a letter counts; an open one since the target is run as if it were new."""
        is_decided = letter["is_replayed"] or letter["decision"] == "discard"
        return is_decided or self._is_before((letter["topic"], letter["partition"], letter["offset"]))

    def _is_before(self, place: Place) -> bool:
        """True if the record stands before the target, or is none of it."""
        move = self._moves.get(TopicPartition(*place[:2]))
        return move is None or place[2] < move.offset

    async def _failing(self, connection: Connection) -> set[Place]:
        """Return the records that have failed, and are not decided about."""
        group = self._subscription.group
        parked = {tuple(row) for row in await connection.fetch(sql.lane.PARKED_PLACES, group)}
        letters = await connection.fetch(sql.dead_letter.PLACES, group)
        return parked | {
            (row["topic"], row["partition"], row["offset"])
            for row in letters
            if not row["is_replayed"] and row["decision"] != "discard"
        }

    async def _run_up_to(self, targets: Mapping[TopicPartition, int]) -> None:
        assert self._merged is not None
        while taken := await self._merged.take(targets):
            for place, records in taken:
                await self._run(place, records)
                self._done += len(records)
            self._report(min(self._done, self._total), self._total)

    async def _run(self, place: TopicPartition, records: Sequence[Record]) -> None:
        keys, is_whole = self._keys[place.partition], place.partition in self._whole
        heard: Heard = await self._rehearsal.run(place, records, None if is_whole else keys)
        self._difference.events += len(heard.items)
        for item in heard.items:
            at = position_of(item.record)
            if item.outcome is Outcome.HANDLER_ERROR:
                self._failed[at] = item
            elif at in self._failed_then:
                self._succeeded.add(at)
            if is_whole and item.key is not None:
                keys.add(item.key)
        for item, record in heard.emits:
            self._emitted[place].add(item.record.offset, record)

    def _judge(self, failed_then: Collection[Place]) -> None:
        """Tell failures that are new from those that were there, and from those that are gone."""
        for place, item in sorted(self._failed.items()):
            if place not in failed_then:
                self._difference.add_raised(Raised(*place, item.key, str(item.error)))
        self._difference.mended = len(self._succeeded & set(failed_then))

    async def _compare(self, connection: Connection) -> None:
        gaps = self._rehearsal.gaps
        keys = sorted(set().union(*self._keys.values()) - gaps.keys())
        self._difference.keys, self._difference.left_out = len(keys), len(gaps)
        for name, state in self._subscription.states.items():
            for at in range(0, len(keys), STEP_KEYS):
                step = keys[at : at + STEP_KEYS]
                rows = await connection.fetch(sql.state.READ, self._subscription.group, name, step)
                before = {row["key"]: (row["data"].encode(), row["class_version"]) for row in rows}
                after = await asyncio.to_thread(self._rehearsal.states, name, step)
                compare(self._difference, state, before, after)
