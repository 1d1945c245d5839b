"""What is there at the end of a run: the log, the tables, the calls to the outside, and the history."""

from __future__ import annotations

import asyncio
import json
from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import asyncpg

from headrace.audit.snapshot import audit, groups
from headrace.errors import StateUnavailableError
from tests.crash.cluster import NAME, TOPICS, Cluster
from tests.crash.history import History
from tests.crash.streams import Position, Streams, read

WINDOW_IDS = 200_000
STATES = {
    "noted": ("lists", "numbers"),
    "echoed": ("echoes", "numbers"),
    "reminded": ("echoes", "reminders"),
    "mailed": ("echoes", "mails"),
    "booked": ("echoes", "bookings"),
}
"""The subscription and the state in which the events of a type end."""
SIDE_STATE = ("side", "numbers")
RECENT_STATE = ("echoes", "recent")
"""A state that expires."""
Place = tuple[str, str, int]
"""Subscription, topic, partition."""


class LedgerRow(NamedTuple):
    """A row of the ledger."""

    place: Place
    sequence: int
    kind: int
    first_offset: int
    next_offset: int
    applied: int
    skipped: int
    parked: int
    dead: int


class Call(NamedTuple):
    """A call to the outside, in the order in which they were made."""

    what: str
    key: str
    number: int
    idempotency_key: str


@dataclass
class Evidence:
    """What the checkers compare."""

    history: History
    streams: Streams
    lists: dict[str, dict[str, array[int]]]
    """What was applied to each key, by type."""
    sided: dict[str, array[int]] = field(default_factory=dict)
    """Likewise, of the topic whose log is meddled with."""
    dead: Counter[Position] = field(default_factory=Counter)
    ledger: list[LedgerRow] = field(default_factory=list)
    claims: dict[Place, int] = field(default_factory=dict)
    """Where each claim stands."""
    calls: list[Call] = field(default_factory=list)
    sagas: dict[str, str] = field(default_factory=dict)
    """How each saga ended."""
    work: dict[str, list[str]] = field(default_factory=dict)
    """What was done for each order."""
    bookings: dict[str, list[int]] = field(default_factory=dict)
    """The rows that the route has written, by account."""
    findings: list[str] = field(default_factory=list)
    """What the platform's own audit says."""
    recent: dict[str, array[int]] = field(default_factory=dict)
    """What is left of the states that expire."""


async def collect(cluster: Cluster, history: History) -> Evidence:
    """Read everything."""
    streams = await asyncio.to_thread(read, cluster.bootstrap, dict.fromkeys(TOPICS, cluster.plan.partitions))
    connection = await asyncpg.connect(cluster.url)
    try:
        kept = {row["key"]: json.loads(row["data"]) for row in await connection.fetch(STATE, "work", "work")}
        return Evidence(
            history,
            streams,
            {type_: await _lists(connection, *state) for type_, state in STATES.items()},
            await _lists(connection, *SIDE_STATE),
            Counter([(row[0], row[1], row[2]) for row in await connection.fetch(DEAD)]),
            [_ledger_row(row) for row in await connection.fetch(LEDGER, TOPICS)],
            {(row[0], row[1], row[2]): row[3] for row in await connection.fetch(CLAIMS, TOPICS)},
            _calls(cluster.calls),
            {row["key"]: row["status"] for row in await connection.fetch("select key, status from headrace.saga")},
            {key: data["done"] for key, data in kept.items()},
            await _bookings(connection),
            [each for name in await groups(connection) for each in await _findings(connection, name)],
            await _lists(connection, *RECENT_STATE),
        )
    finally:
        await connection.close()


STATE = f"select key, data from headrace.state where subscription = '{NAME}.' || $1 and state = $2"
DEAD = 'select topic, partition, "offset" from headrace.dead_letter'
LEDGER = """
select subscription, topic, partition, sequence, kind, first_offset, next_offset, applied, skipped, parked, dead
from headrace.ledger where topic = any($1::text[]) order by subscription, topic, partition, sequence
"""
CLAIMS = "select subscription, topic, partition, next_offset from headrace.claim where topic = any($1::text[])"
BOOKINGS = "select account, number from booking order by account, number"


async def _lists(connection: asyncpg.Connection, subscription: str, state: str) -> dict[str, array[int]]:
    rows = await connection.fetch(STATE, subscription, state)
    return {row["key"]: array("I", json.loads(row["data"])["numbers"]) for row in rows}


def _ledger_row(row: asyncpg.Record) -> LedgerRow:
    return LedgerRow((row[0], row[1], row[2]), *tuple(row)[3:])


def _calls(file: Path) -> list[Call]:
    return [Call(*json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


async def _bookings(connection: asyncpg.Connection) -> dict[str, list[int]]:
    booked: defaultdict[str, list[int]] = defaultdict(list)
    for account, number in await connection.fetch(BOOKINGS):
        booked[account].append(number)
    return dict(booked)


async def _findings(connection: asyncpg.Connection, group: str) -> Sequence[str]:
    try:
        report = await audit(connection, group, WINDOW_IDS)
    except StateUnavailableError as error:
        return [str(error)]
    return [f"{group}: {finding.detail}" for finding in report.findings]
