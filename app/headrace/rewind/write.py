"""Writes what a rewind changes beside one claim, and the claim itself, in the caller's transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from headrace import sql
from headrace.database.pool import Connection
from headrace.errors import ConfigurationError
from headrace.handlers.subscription import Subscription
from headrace.ledger.moves import NOTHING, note_move, read_quiet
from headrace.ledger.rows import insert_row, move
from headrace.log.ports import TopicPartition
from headrace.rewind.plan import Move, Plan
from headrace.rewind.states import Remade
from headrace.rewind.window import discarded, known_before, rows_of, write_known
from headrace.sagas.kept import SAGA_STATE
from headrace.sagas.store import follow
from headrace.settings import EngineSettings
from headrace.state.hand import Act
from headrace.tables.schema import LONG_SECONDS
from headrace.timers.store import write as write_timers

STEP_KEYS = 10_000
"""States that are written with one statement."""


class MovedOnError(ConfigurationError):
    """A claim is not where it was stopped."""


class Work(NamedTuple):
    """What is known when one claim is moved."""

    subscription: Subscription
    plan: Plan
    act: Act
    settings: EngineSettings


async def move_claim(
    connection: Connection, work: Work, moved: Move, sequence: int, remade: Remade | None
) -> Mapping[str, int]:
    """Move one claim, which stands at `moved.claimed` and the ledger's `sequence`; return how much was changed.

    Raises: MovedOnError (the claim has moved meanwhile), ConfigurationError (a key on two partitions, a discarded event
    that would not stay out).
    """
    group, place, offset = work.plan.group, moved.place, moved.offset
    limit = work.settings.dedupe_window_ids
    known = await known_before(connection, group, place, offset, sequence, limit)
    quiet_until, first_runs = await _quiet(connection, work, moved)
    changed = Counter[str]()
    changed["parked"] = await connection.fetchval(sql.lane.UNPARK_FROM, group, *place, offset)
    await connection.execute(sql.lane.CLOSE_EMPTY, group, place.partition)
    done = await connection.execute(sql.dead_letter.REWIND, group, *place, offset, work.act.by, work.act.why)
    changed["dead_letters"] = count_of(done)
    # Read only now: what is open no longer can be discarded.
    known += discarded(await connection.fetch(sql.dead_letter.OF_RANGE, group, *place, offset), moved, limit)
    if remade is not None:
        changed["keys"] = len(remade.keys)
        await _remake(connection, work.subscription, place.partition, remade)
    elif work.plan.states == "reset":
        changed += await _reset(connection, group, place.partition)
    row = move(sequence + 1, 0, moved.claimed, offset)
    last = row.sequence + rows_of(known)
    epoch = await connection.fetchval(sql.claim.REWIND, group, *place, offset, last, moved.claimed, sequence)
    if epoch is None:
        raise MovedOnError(
            f"{place.topic}/{place.partition} of {group} has moved on meanwhile; nothing was changed: rewind it again."
        )
    row = row._replace(epoch=epoch)
    await insert_row(connection, group, place, row)
    await write_known(connection, group, place, offset, row.sequence + 1, known)
    await note_move(
        connection, group, place, row, "rewind", quiet_until=quiet_until, first_runs=first_runs, changed=changed,
        by=work.act.by, why=work.act.why,
    )  # fmt: skip
    return changed


async def _reset(connection: Connection, group: str, partition: int) -> Counter[str]:
    """Let the keys of a partition begin anew."""
    changed = Counter[str]()
    for what, query in (("states", sql.state.RESET), ("sagas", sql.saga.RESET), ("timers", sql.timer.RESET)):
        changed[what] = count_of(await connection.execute(query, group, [partition], timeout=LONG_SECONDS))
    return changed


async def _remake(connection: Connection, subscription: Subscription, partition: int, remade: Remade) -> None:
    """Let keys have the states, sagas and timers of then."""
    group = subscription.group
    keys = sorted(remade.keys)
    for at in range(0, len(keys), STEP_KEYS):
        step = keys[at : at + STEP_KEYS]
        stray = await connection.fetchrow(sql.state.ELSEWHERE, group, step, partition)
        if stray is not None:
            raise ConfigurationError(
                f"events of the key {stray['key']!r} are on partition {stray['partition']} as well, and no log tells "
                "their order; nothing was changed: mend single keys by headrace state put."
            )
        for name, states in remade.states.items():
            have = [key for key in step if key in states]
            await connection.execute(sql.state.FORGET, group, name, [key for key in step if key not in states])
            data = [states[key] for key in have]
            version = subscription.states[name].keeping.version
            texts = [raw.decode() for raw in data]
            await connection.execute(sql.state.REMAKE, group, name, partition, have, texts, version)
            if name == SAGA_STATE:
                await connection.execute(sql.saga.FORGET, group, [key for key in step if key not in states])
                await connection.execute(sql.saga.REOPEN, group, have)
                if have:
                    await follow(connection, group, partition, list(zip(have, [0] * len(have), data, strict=True)))
    await write_timers(connection, group, partition, remade.timers)


async def _quiet(connection: Connection, work: Work, moved: Move) -> tuple[int | None, Collection[int]]:
    """Return up to which offset effects are not started again, and which events before it never had theirs."""
    if not work.subscription.effects:
        return None, ()
    group, place = work.plan.group, moved.place
    before = (await read_quiet(connection, group, place.partition)).get(place.topic, NOTHING)
    if work.plan.effects and before.until <= moved.claimed:
        return None, ()
    never = {offset for offset in before.first_runs if offset >= moved.claimed}
    for row in await connection.fetch(sql.lane.PARKED_PLACES, group):
        if TopicPartition(row["topic"], row["partition"]) == place:
            never.add(row["offset"])
    for row in await connection.fetch(sql.dead_letter.OF_RANGE, group, *place, 0):
        if _waits(row):
            never.add(row["offset"])
    if work.plan.effects:  # an earlier rewind is not through: what it has yet to apply again stays without effects
        return before.until, never | set(range(moved.offset, moved.claimed))
    return max(moved.claimed, before.until), never


def _waits(letter: Any) -> bool:
    """True if the letter's event was not applied: nobody has decided, or its replay was not taken up."""
    return letter["decision"] is None or (letter["decision"] == "replay" and letter["settled_at"] is None)


def count_of(status: str) -> int:
    """Return how many rows a statement has written."""
    return int(status.rpartition(" ")[2])
