"""Lanes: the parked events of one key, in order, waiting for a retry.

The owner keeps which keys have a lane, how many events wait there and when the head is due; the events themselves stay
in Postgres. A run of a lane's head is counted before it starts, so that an event that ends its process uses up an
attempt. A run that an outage ended uses up none: the row says that a run had begun (`is_running`), and only an owner
that died while it was running is held against the event.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from headrace import sql
from headrace.database.pool import Connection
from headrace.engine.verdict import Park
from headrace.handlers.policy import Policy
from headrace.handlers.subscription import Handler
from headrace.item import Item
from headrace.ledger.dead_letters import error_type
from headrace.log.ports import StoredRecord
from headrace.log.stored import pack_headers, plain, stored_record


class Lane(msgspec.Struct):
    """One key's lane. `due` and `since` are Unix seconds; `attempts` are the head's runs so far.

    A lane that is never due is held: only an operator's retry runs it again.
    """

    due: float
    since: float
    attempts: int = 0
    events: int = 0
    error: str = ""
    error_type: str | None = None
    handler: str | None = None
    """What failed: the handler of the head, and the class of its error."""
    is_counted: bool = False
    """True if the head's next run was counted already, and an outage ended it."""
    head: int = 0
    """The number of the first event when the lane was loaded."""


class Lanes:
    """The lanes of one partition of one subscription, by key."""

    def __init__(self, policy_of: Callable[[Handler | None], Policy]) -> None:
        self.policy_of = policy_of
        """Returns the policy of a handler."""
        self.is_probing = False
        """True while a single event is run to see whether an outage is over: whatever it raises is of the outage."""
        self.by_key: dict[str, Lane] = {}
        self.next_number = 1

    def policy(self, handler: Handler | None) -> Policy:
        """Return the policy of a handler as it is now."""
        policy = self.policy_of(handler)
        return policy._replace(outage=(BaseException,)) if self.is_probing else policy

    async def load(self, connection: Connection, group: str, partition: int, *, hung: Mapping[str, int]) -> None:
        """Read which keys are parked.

        A run that had begun counts if the head did not return: `hung` are the numbers of such events by key. That of an
        owner that died counts as well, which the claim has noted.
        """
        rows = await connection.fetch(sql.lane.LOAD, group, partition)
        self.by_key = {}
        for row in rows:
            key = row["key"].decode()
            self.by_key[key] = Lane(
                due=row["due"],
                since=row["since"],
                attempts=row["attempts"],
                events=row["events"],
                error=row["error"],
                error_type=row["error_type"],
                handler=row["handler"],
                is_counted=row["is_running"] and hung.get(key) != row["head"],
                head=row["head"],
            )
        self.next_number = max((row["number"] for row in rows), default=0) + 1

    async def read_due_times(self, connection: Connection, group: str, partition: int) -> None:
        """Read when the lanes are due, since an operator asked for a retry. Raises: StateError."""
        for row in await connection.fetch(sql.lane.DUE_TIMES, group, partition):
            if (lane := self.by_key.get(row["key"].decode())) is not None:
                lane.due = row["due"]

    def follow(self, lanes: Mapping[str, Lane], closed: Iterable[str], parked: Sequence[Item]) -> None:
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
        """Return the seconds until a lane is due, or None when there is no lane."""
        return max(0.0, min(lane.due for lane in self.by_key.values()) - now) if self.by_key else None

    def opened(self, park: Park, item: Item) -> Lane:
        """Return the lane that a failing event opens."""
        lane = Lane(due=0.0, since=time.time())
        self.park(lane, park, item)
        return lane

    def park(self, lane: Lane, park: Park, item: Item) -> None:
        """Let the lane's head wait as the verdict says, and note why."""
        lane.attempts, lane.due = park.attempts, self.due_after(park)
        lane.error, lane.error_type = reason_of(item), error_type(item.error)
        lane.handler = item.handler.name if item.handler is not None else None

    def due_after(self, park: Park) -> float:
        """Return when a lane is due, in Unix seconds: chance takes off a part of the delay."""
        return time.time() + park.delay * (1.0 - park.jitter * random.random())  # noqa: S311 - no secret


def reason_of(item: Item) -> str:
    """Return why an event waits, or was given up on."""
    return plain(str(item.error or item.outcome.value))


async def read_heads(
    connection: Connection, group: str, partition: int, keys: Sequence[str], *, events: int, max_bytes: int
) -> list[tuple[str, int, StoredRecord]]:
    """Return (key, number, record) of the first events of each lane, `max_bytes` in all or a single event.

    The lanes come in the order given; the last ones are missing when the bytes do not suffice.
    """
    rows = await connection.fetch(
        sql.lane.FIRST_EVENTS, group, partition, [key.encode() for key in keys], events, max_bytes
    )
    return [(row["key"].decode(), row["number"], stored_record(row, partition)) for row in rows]


async def count_runs(connection: Connection, group: str, partition: int, attempts: Mapping[str, int]) -> None:
    """Write the heads' attempts, by key, of runs that are about to start."""
    keys = sorted(attempts)
    await connection.execute(
        sql.lane.COUNT_RUN, group, partition, [key.encode() for key in keys], [attempts[key] for key in keys]
    )


async def park(connection: Connection, group: str, partition: int, items: Sequence[Item]) -> None:
    """Append the items, numbered by the caller, to their lanes."""
    await connection.execute(sql.lane.PARK, group, partition, *zip(*(_row(item) for item in items), strict=True))


async def open_lanes(connection: Connection, group: str, partition: int, lanes: Mapping[str, Lane]) -> None:
    """Write the lanes' rows, sorted by key."""
    rows = [
        (key.encode(), lane.attempts, lane.due, lane.error, lane.error_type, lane.handler)
        for key, lane in sorted(lanes.items())
    ]
    await connection.execute(sql.lane.OPEN, group, partition, *zip(*rows, strict=True))


async def unpark(connection: Connection, group: str, partition: int, items: Sequence[Item]) -> None:
    """Remove the items from their lanes."""
    keys = [(item.key or "").encode() for item in items]
    await connection.execute(sql.lane.UNPARK, group, partition, keys, [item.number for item in items])


async def close_lanes(connection: Connection, group: str, partition: int, keys: Sequence[str]) -> None:
    """Remove the rows of empty lanes."""
    await connection.execute(sql.lane.CLOSE, group, partition, [key.encode() for key in keys])


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
