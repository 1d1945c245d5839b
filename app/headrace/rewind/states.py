"""Makes the states of then: of the keys that have events behind the place, from all of their events before it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import NamedTuple

from headrace import sql
from headrace.database.pool import Connection
from headrace.errors import ConfigurationError, HandlerError
from headrace.handlers.subscription import Subscription
from headrace.item import Item, Outcome
from headrace.log.ports import Log, Record, TopicPartition
from headrace.rebuild.reading import LogReading
from headrace.rebuild.replay import Letters
from headrace.registry import Registry
from headrace.rewind.plan import Move
from headrace.rewind.rehearsal import Rehearsal, Report, where
from headrace.rewind.timers import TimersOfThen
from headrace.settings import Settings
from headrace.timers.changes import Change


class Remade(NamedTuple):
    """What the keys of one partition had then."""

    keys: Collection[str]
    states: Mapping[str, Mapping[str, bytes]]
    """JSON by state and key; a key that is missing had none."""
    timers: Sequence[Change]


async def remake(
    connection: Connection,
    log: Log,
    registry: Registry,
    subscription: Subscription,
    settings: Settings,
    moves: Sequence[Move],
    report: Report,
) -> dict[TopicPartition, Remade]:
    """Return what was kept at the offsets of the moves.

    Raises: HandlerError (a handler raises now at an event that was applied then), ConfigurationError (an event came
    before its turn), TransportError.
    """
    group = subscription.group
    timers = {
        move.place: TimersOfThen(await connection.fetch(sql.timer.OF_PARTITION, group, move.place.partition))
        for move in moves
    }
    keys: dict[TopicPartition, set[str]] = {move.place: set() for move in moves}
    rehearsal = Rehearsal(registry, subscription, settings)
    rehearsal.letters = Letters(await connection.fetch(sql.dead_letter.PLACES, group))
    rehearsal.parked = {tuple(row) for row in await connection.fetch(sql.lane.PARKED_PLACES, group)}
    total = sum(move.claimed - move.begun for move in moves)
    try:
        async for place, records, left in read(log, {move.place: (move.offset, move.claimed) for move in moves}):
            items = await rehearsal.keys(records)
            keys[place].update(item.key for item in items if item.key is not None)
            timers[place].met(items)
            report(sum(move.claimed - move.offset for move in moves) - left, total)
        async for place, records, left in read(log, {move.place: (move.begun, move.offset) for move in moves}):
            heard = await rehearsal.run(place, records, keys[place])
            _refuse_failed(heard.items)
            _refuse_gaps(rehearsal.gaps)
            timers[place].met(heard.items)
            timers[place].follow(heard.timers)
            report(total - left, total)
        return {
            place: Remade(found, await _states(rehearsal, subscription, found), timers[place].changes())
            for place, found in keys.items()
        }
    finally:
        rehearsal.close()


async def read(
    log: Log, ranges: Mapping[TopicPartition, tuple[int, int]]
) -> AsyncIterator[tuple[TopicPartition, list[Record], int]]:
    """Yield records of some partitions, between two offsets each, and how many offsets are left.

    Raises: TransportError.
    """
    reading = await LogReading.start(log, {place: begin for place, (begin, _) in ranges.items()})
    targets = {place: end for place, (_, end) in ranges.items()}
    try:
        while taken := await reading.take(targets):
            for place, records in taken.items():
                yield place, records, reading.behind(targets)
    finally:
        await reading.close()


async def _states(
    rehearsal: Rehearsal, subscription: Subscription, keys: Collection[str]
) -> dict[str, dict[str, bytes]]:
    return {name: await asyncio.to_thread(rehearsal.states, name, keys) for name in subscription.states}


def _refuse_failed(items: Sequence[Item]) -> None:
    """Refuse a past in which a handler raises. Raises: HandlerError."""
    failed = next((item for item in items if item.outcome is Outcome.HANDLER_ERROR), None)
    if failed is None:
        return
    name = failed.handler.name if failed.handler is not None else ""
    raise HandlerError(
        f"{failed.error} at {where(failed)}, which was applied before, so the states of then cannot be made: mend the "
        "handler, or go back to a place before that event.",
        name,
    ) from failed.error


def _refuse_gaps(gaps: Mapping[str, Item]) -> None:
    """Refuse a past in which an event came before its turn. Raises: ConfigurationError."""
    for key, item in gaps.items():
        raise ConfigurationError(
            f"the event of {key!r} at {where(item)} came before its turn, and the log does not tell whether those "
            "before it were waited for in vain, so the states of then cannot be made: go back to a place before that "
            "event, or to the beginning."
        )
