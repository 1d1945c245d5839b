"""Lanes: the parked events of one key, in order, waiting for a retry.

The owner keeps which keys have a lane, how many events wait there and when the head is due; the events themselves stay
in Postgres. A run of a lane is counted before it starts (`ATTEMPT`), so that an event that kills its process comes to
an end as well.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import asyncpg
import msgspec

from headrace.item import Item, Outcome
from headrace.log.ports import StoredRecord
from headrace.log.stored import pack_headers, plain, stored_record
from headrace.settings import EngineSettings

LOAD = """
select lane.key, lane.attempts, extract(epoch from lane.due_at)::float8 as due, lane.error,
       extract(epoch from lane.parked_at)::float8 as since, count(*) as events, max(parked.number) as number
from headrace.lane join headrace.parked using (subscription, partition, key)
where subscription = $1 and partition = $2
group by lane.key, lane.attempts, lane.due_at, lane.error, lane.parked_at
"""

OPEN = """
insert into headrace.lane (subscription, partition, key, attempts, due_at, error)
select $1, $2, new.key, new.attempts, to_timestamp(new.due), new.error
from unnest($3::bytea[], $4::int[], $5::float8[], $6::text[]) as new (key, attempts, due, error)
on conflict (subscription, partition, key) do update
set attempts = excluded.attempts, due_at = excluded.due_at, error = excluded.error
"""

PARK = """
insert into headrace.parked (subscription, partition, key, number, topic, "offset", "timestamp", record_key, value,
                             headers, source, event_id, type, reason)
select $1, $2, new.*
from unnest($3::bytea[], $4::bigint[], $5::text[], $6::bigint[], $7::bigint[], $8::bytea[], $9::bytea[], $10::bytea[],
            $11::text[], $12::text[], $13::text[], $14::text[]) as new
"""

HEADS = """
select lane.key, parked.number, topic, "offset", "timestamp", record_key, value, headers
from unnest($3::bytea[]) as lane (key)
cross join lateral (
    select * from headrace.parked where subscription = $1 and partition = $2 and key = lane.key order by number limit $4
) as parked
order by lane.key, parked.number
"""

ATTEMPT = """
update headrace.lane set attempts = attempts + 1
where subscription = $1 and partition = $2 and key = any($3::bytea[])
"""

UNPARK = """
delete from headrace.parked using unnest($3::bytea[], $4::bigint[]) as gone (key, number)
where subscription = $1 and partition = $2 and parked.key = gone.key and parked.number = gone.number
"""
CLOSE = "delete from headrace.lane where subscription = $1 and partition = $2 and key = any($3::bytea[])"


class Lane(msgspec.Struct):
    """One key's lane. `due` and `since` are Unix seconds; `attempts` are the head's runs so far."""

    due: float
    since: float
    attempts: int = 0
    events: int = 0
    error: str = ""


class Lanes:
    """The lanes of one partition of one subscription, by key."""

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self.by_key: dict[str, Lane] = {}
        self.next_number = 1

    @property
    def events(self) -> int:
        """Events that wait in all lanes."""
        return sum(lane.events for lane in self.by_key.values())

    async def load(self, connection: asyncpg.Connection[Any], subscription: str, partition: int) -> None:
        """Read which keys are parked."""
        rows = await connection.fetch(LOAD, subscription, partition)
        self.by_key = {
            row["key"].decode(): Lane(
                due=row["due"], since=row["since"], attempts=row["attempts"], events=row["events"], error=row["error"]
            )
            for row in rows
        }
        self.next_number = max((row["number"] for row in rows), default=0) + 1

    def take_in(self, lanes: Mapping[str, Lane], closed: Iterable[str], parked: Sequence[Item]) -> None:
        """Follow what was committed: lanes as they are now, keys without one, events that joined."""
        self.by_key.update(lanes)
        for key in closed:
            self.by_key.pop(key, None)
        for item in parked:
            assert item.key is not None
            self.by_key[item.key].events += 1
        self.next_number += len(parked)

    def due(self, now: float, limit: int) -> list[str]:
        """Return keys whose head may run, the longest due first."""
        keys = [key for key, lane in self.by_key.items() if lane.due <= now]
        return sorted(keys, key=lambda key: self.by_key[key].due)[:limit]

    def seconds_to_next(self, now: float) -> float | None:
        """Return the seconds until a lane is due, or None where none waits."""
        return max(0.0, min(lane.due for lane in self.by_key.values()) - now) if self.by_key else None

    def back_off(self, attempts: int) -> float:
        """Return the seconds before the next run after `attempts` failed ones: doubling, up to half of it random."""
        doublings = min(attempts - 1, 64)  # a float ends at 1,024 of them
        ceiling = min(self.settings.retry_max_seconds, self.settings.retry_first_seconds * 2.0**doublings)
        return ceiling * (0.5 + random.random() / 2)  # noqa: S311 - jitter, not a secret


def records_of(rows: Iterable[Mapping[str, Any]], partition: int) -> list[tuple[str, int, StoredRecord]]:
    """Return (key, number, record) of the partition's rows of `parked`, in the order given."""
    return [(row["key"].decode(), row["number"], stored_record(row, partition)) for row in rows]


async def park(connection: asyncpg.Connection[Any], subscription: str, partition: int, items: Sequence[Item]) -> None:
    """Append the items, numbered by the caller, to their lanes."""
    await connection.execute(
        PARK,
        subscription,
        partition,
        *zip(*(_row(item) for item in items), strict=True),
    )


async def open_lanes(
    connection: asyncpg.Connection[Any], subscription: str, partition: int, lanes: Mapping[str, Lane]
) -> None:
    """Write the lanes' rows, sorted by key."""
    rows = [(key.encode(), lane.attempts, lane.due, lane.error) for key, lane in sorted(lanes.items())]
    await connection.execute(OPEN, subscription, partition, *zip(*rows, strict=True))


def new_lane(lanes: Lanes, item: Item) -> Lane:
    """Return the lane that a failing item opens.

    An event that killed its process gets one last run, after the longest wait; one that never ran has all its runs.
    """
    now = time.time()
    error = plain(str(item.error or item.outcome.value))
    if item.outcome is Outcome.PROCESS_KILLED:
        last = lanes.settings.retry_attempts - 1
        return Lane(due=now + lanes.settings.retry_max_seconds, since=now, attempts=last, error=error)
    attempts = 1 if item.outcome is Outcome.HANDLER_ERROR else 0
    return Lane(due=now + lanes.back_off(1), since=now, attempts=attempts, error=error)


def _row(item: Item) -> tuple[Any, ...]:
    record, envelope = item.record, item.envelope
    assert item.key is not None
    return (
        item.key.encode(),
        item.number,
        record.topic,
        record.offset,
        record.timestamp,
        record.key,
        record.value,
        pack_headers(record.headers),
        plain(envelope.source),
        plain(envelope.id),
        plain(envelope.type),
        item.outcome.value,
    )
