"""Timers in Postgres, written and taken by set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from headrace import sql
from headrace.database.pool import Connection
from headrace.log.ports import NewRecord
from headrace.log.stored import new_record, pack_headers
from headrace.telemetry.metrics import Metrics
from headrace.timers.changes import Change, folded
from headrace.timers.schedule import Schedule


class FiredTimer(NamedTuple):
    """A timer that was due: its event, how late it was taken, and the name of its schedule if it has one."""

    record: NewRecord
    late_seconds: float
    schedule: str | None
    now: datetime


async def write(connection: Connection, group: str, partition: int, changes: Iterable[Change]) -> float | None:
    """Cancel and set timers; return in how many seconds the first of those set is due, None if none was."""
    cancelled, timers = folded(changes)
    if cancelled:
        types, keys, names = zip(*cancelled, strict=True)
        await connection.execute(sql.timer.CANCEL, group, types, [key.encode() for key in keys], names)
    if not timers:
        return None
    rows = [
        (
            timer.type,
            timer.key.encode(),
            timer.name,
            timer.due.after_seconds,
            timer.due.at,
            timer.record.topic,
            timer.record.value,
            pack_headers(timer.record.headers),
            timer.cron,
        )
        for timer in timers
    ]
    seconds: float = await connection.fetchval(sql.timer.SET, group, partition, *zip(*rows, strict=True))
    return seconds


async def take_due(connection: Connection, group: str, partition: int, most: int, most_bytes: int) -> list[FiredTimer]:
    """Remove timers that are due, in the caller's transaction; return them: at least one, and no more than fit."""
    rows = await connection.fetch(sql.timer.TAKE_DUE, group, [partition], most, most_bytes)
    return [fired_timer(row) for row in rows]


def fired_timer(row: Any) -> FiredTimer:
    """Return the timer that a row was."""
    return FiredTimer(_record(row), row["late_seconds"], row["name"] if row["cron"] else None, row["now"])


async def follow_schedules(
    connection: Connection, group: str, partition: int, schedules: Mapping[str, Schedule]
) -> None:
    """Set the next timer of each schedule that has none, and remove those of schedules that are gone."""
    names = sorted(schedules)
    await connection.execute(sql.timer.DROP_SCHEDULES, group, names)
    row = await connection.fetchrow(sql.timer.SCHEDULED, group, names)
    assert row is not None
    missing = [schedules[name] for name in names if name not in row["names"]]
    await write(connection, group, partition, [each.timer(each.after(row["now"])) for each in missing])


async def seconds_to_next(connection: Connection, group: str, partitions: Sequence[int]) -> float | None:
    """Return in how many seconds the next timer is due; None if there is none."""
    seconds: float | None = await connection.fetchval(sql.timer.SECONDS_TO_NEXT, group, partitions)
    return seconds


def count_fired(metrics: Metrics, subscription: str, fired: Sequence[FiredTimer]) -> None:
    """Count the timers that have fired, and how late they were."""
    metrics.timers_fired_total.labels(subscription=subscription).inc(len(fired))
    late = metrics.timers_late_seconds.labels(subscription=subscription)
    for timer in fired:
        late.observe(timer.late_seconds)


def _record(row: Any) -> NewRecord:
    return new_record(row["topic"], row["key"], row["value"], row["headers"])
