"""Makes the new table, fills it, and lets it take the place of the one in use."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from headrace import sql
from headrace.database.failures import sqlstate_of
from headrace.database.pool import Connection
from headrace.engine.continuity import refuse_other_log
from headrace.errors import ConfigurationError
from headrace.log.ports import Log, TopicPartition
from headrace.projections.projection import Projection
from headrace.rebuild.reading import Positions
from headrace.rebuild.replay import Replay
from headrace.rebuild.stored import replay_store
from headrace.registry import Registry
from headrace.settings import Settings
from headrace.tables.schema import LONG_SECONDS, create_indexes, create_table, fingerprint, is_there, take_place

NEAR_RECORDS = 1_000
"""The rest that is applied while the writers wait."""
SUFFIX = "__new"
DEPENDENTS = "2BP01"

Report = Callable[[int, int], None]
"""(offsets done, offsets in all): called after each step."""
Tell = Callable[[int, int], Awaitable[None]]
"""The same, for the processes that serve the projection as well."""


class Rebuilt(NamedTuple):
    """What a rebuild did."""

    events: int
    rows: int
    seconds: float
    waited_seconds: float
    """How long writers stood still."""


async def rebuild(
    connection: Connection,
    log: Log,
    registry: Registry,
    projection: Projection,
    settings: Settings,
    report: Report,
    *,
    snapshot: Connection | None = None,
) -> Rebuilt:
    """Build the projection's table again from the log, and switch to it. `connection` has no statement timeout.

    With `snapshot`, another connection, what was applied comes from the event store, and only the rest from the log.

    Raises: ConfigurationError (not now, and why), HandlerError (a handler raised), TransportError: the old one stays.
    """
    started = time.monotonic()
    new = f"{projection.table.name}{SUFFIX}"
    if not await connection.fetchval(sql.projection.TRY_REBUILD, projection.group):
        raise ConfigurationError(f"the projection {projection.name!r} is being rebuilt by another process.")
    replay = Replay(registry, projection, log, settings)
    named = registry.service, projection.name

    async def tell(done: int, total: int) -> None:
        report(done, total)
        await connection.execute(sql.projection.TELL_REBUILD, *named, done, total)

    try:
        await connection.execute(sql.projection.TELL_REBUILD, *named, None, None)
        letters = await _letters(connection, projection)
        targets = await _claimed(connection, projection)
        await refuse_other_log(log, projection.name, await connection.fetch(sql.claim.POSITIONS, projection.group))
        begins = targets if snapshot is not None else await _begins(log, projection, targets)
        await connection.execute(f"drop table if exists projections.{new}")
        await create_table(connection, projection.table, new)
        await replay.start(connection, begins)
        if snapshot is not None:
            await replay_store(connection, snapshot, log, registry, projection, replay, new, tell)
        await _catch_up(connection, projection, replay, new, begins, tell)
        await create_indexes(connection, projection.table, new)
        await connection.execute(f"analyze projections.{new}", timeout=LONG_SECONDS)
        await _catch_up(connection, projection, replay, new, begins, tell)
        waited = time.monotonic()
        async with connection.transaction():
            await _switch(connection, registry, projection, replay, new, letters)
        waited_seconds = time.monotonic() - waited
        count = f"select count(*) from projections.{projection.table.name}"  # noqa: S608 - a checked name
        rows = await connection.fetchval(count, timeout=LONG_SECONDS)
    except BaseException:
        if not connection.is_closed() and not connection.is_in_transaction():
            await connection.execute(f"drop table if exists projections.{new}")
        raise
    finally:
        await replay.close()
        if not connection.is_closed():
            await connection.execute(sql.projection.END_REBUILD, projection.group)
    return Rebuilt(replay.events, rows, time.monotonic() - started, waited_seconds)


async def _catch_up(
    connection: Connection, projection: Projection, replay: Replay, table: str, begins: Positions, tell: Tell
) -> None:
    """Apply the log until almost nothing is missing to where the service is."""
    while True:
        targets = await _claimed(connection, projection)
        total = sum(targets[each] - begin for each, begin in begins.items())
        missing = replay.behind(targets)
        await tell(total - missing, total)
        if missing <= NEAR_RECORDS:
            return
        await replay.step(connection, table, targets)


async def _switch(
    connection: Connection, registry: Registry, projection: Projection, replay: Replay, new: str, letters: object
) -> None:
    """Apply the rest while writers wait, and let the new table take the old one's place."""
    table = projection.table.name
    # The table before the claims, as a batch does it: the other order could meet one in a deadlock.
    if await is_there(connection, projection.table):  # else nobody can write to it
        await connection.execute(f"lock table projections.{table} in share row exclusive mode")
    rows = await connection.fetch(sql.claim.STAND_STILL, projection.group)
    targets = {TopicPartition(row["topic"], row["partition"]): row["next_offset"] for row in rows}
    await _refuse_lanes(connection, projection)
    if await _letters(connection, projection) != letters:
        raise ConfigurationError(
            f"dead letters of {projection.name!r} came or were decided on meanwhile, so the log does not tell what was "
            "applied; run the rebuild again."
        )
    if targets.keys() != replay.positions.keys():
        raise ConfigurationError(
            f"the partitions of {projection.name!r} have changed meanwhile; run the rebuild again."
        )
    while replay.behind(targets):
        await replay.step(connection, new, targets)
    try:
        await take_place(connection, projection.table, new)
    except Exception as error:
        if sqlstate_of(error) != DEPENDENTS:
            raise
        raise ConfigurationError(
            f"other objects, such as views, depend on projections.{table}; drop them, rebuild, and create them again."
        ) from error
    made = fingerprint(projection.table)
    await connection.execute(sql.projection.WRITE, registry.service, projection.name, table, made)


async def _letters(connection: Connection, projection: Projection) -> object:
    return await connection.fetch(sql.dead_letter.CHANGES, projection.group)


async def _claimed(connection: Connection, projection: Projection) -> Positions:
    await _refuse_lanes(connection, projection)
    rows = await connection.fetch(sql.claim.POSITIONS, projection.group)
    if not rows:
        raise ConfigurationError(
            f"the projection {projection.name!r} has not begun yet, so there is nothing to build again; start the "
            "service, which builds it."
        )
    return {TopicPartition(row["topic"], row["partition"]): row["next_offset"] for row in rows}


async def _begins(log: Log, projection: Projection, targets: Positions) -> Positions:
    """Return where the log begins. Raises: ConfigurationError (it has not everything any more)."""
    bounds = await log.bounds(list(targets))
    for partition in targets:
        if bounds[partition].begin > 0:
            raise ConfigurationError(
                f"{partition.topic}/{partition.partition} begins at {bounds[partition].begin:,}: the log has lost the "
                f"events before it; if {projection.name!r} is made of streams of the event store, add --source store."
            )
    return {partition: bounds[partition].begin for partition in targets}


async def _refuse_lanes(connection: Connection, projection: Projection) -> None:
    waiting = await connection.fetchval(sql.lane.WAITING, projection.group)
    if waiting:
        raise ConfigurationError(
            f"{waiting:,} events of {projection.name!r} wait in lanes, so the log does not tell what was applied; let "
            "them be retried, or become dead letters, first: headrace lanes list."
        )
