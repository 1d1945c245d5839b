"""What is there at the end of a run: the log, the tables, the calls to the outside, and the history."""

from __future__ import annotations

import asyncio
import json
import math
import re
from array import array
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import asyncpg

from headrace.audit.snapshot import audit, groups
from headrace.cloudevents import decode_record
from headrace.errors import StateUnavailableError
from headrace.ledger.rows import unpack_emits
from tests.crash.cluster import NAME, SIDE, TOPICS, Cluster, Worker
from tests.crash.history import History
from tests.crash.plan import PUT_BACK
from tests.crash.streams import Position, Streams, read
from tests.support.link import process_at
from tests.support.web import http_client

WINDOW_IDS = 200_000
STATES = {
    "noted": ("lists", "numbers"),
    "stepped": ("steps", "numbers"),
    "echoed": ("echoes", "numbers"),
    "reminded": ("echoes", "reminders"),
    "mailed": ("echoes", "mails"),
    "booked": ("echoes", "bookings"),
}
"""The subscription and the state in which the events of a type end."""
SIDE_STATE = ("side", "numbers")
LOST = re.compile(r"([\w.-]+): ([\w.-]+)/(\d+) was claimed by another owner \(epoch (\d+) at")
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
    began_at: float = 0.0
    """When its transaction began, in Unix seconds."""
    emitted: tuple[str, ...] = ()
    """The ids of its emits."""


class Fenced(NamedTuple):
    """A claim that a process says it has lost."""

    place: Place
    epoch: int


class Call(NamedTuple):
    """A call to the outside, in the order in which they were made."""

    what: str
    key: str
    number: int
    idempotency_key: str
    at: float = math.inf
    """In Unix seconds."""
    writer: int = 0
    """The process."""


class CountedDeath(NamedTuple):
    """A process that has counted an attempt of the calls of a partition, since their owner had died."""

    subscription: str
    partition: int
    writer: int


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
    memory: list[str] = field(default_factory=list)
    """What processes remember otherwise than Postgres has it."""
    fenced: set[Fenced] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    """What processes say of partitions that they do not take."""
    jumps: list[str] = field(default_factory=list)
    """Lanes whose attempts were raised by more than one."""
    deaths: dict[str, int] = field(default_factory=dict)
    """How many processes each event has ended."""
    counted_deaths: list[CountedDeath] = field(default_factory=list)

    @property
    def is_put_back(self) -> bool:
        """True if the database has lost a future, of which the log and the outside know."""
        return any(fault.kind == PUT_BACK for fault in self.history.faults)

    @cached_property
    def _batches(self) -> dict[Place, list[LedgerRow]]:
        """The rows of records of the log, in their order."""
        found: defaultdict[Place, list[LedgerRow]] = defaultdict(list)
        for row in self.ledger:
            if row.kind == 0 and row.next_offset > row.first_offset:
                found[row.place].append(row)
        return found

    def began(self, subscription: str, position: Position) -> float:
        """Return when the transaction began that took the record at a position; 0 if there is none."""
        rows = self._batches.get((f"{NAME}.{subscription}", *position[:2]), [])
        at = bisect_right(rows, position[2], key=attrgetter("next_offset"))
        return rows[at].began_at if at < len(rows) and rows[at].first_offset <= position[2] else 0.0


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
            [each for worker in cluster.workers if worker.is_alive for each in await _memory(worker)],
            *_told(cluster),
            [str(tuple(row)) for row in await connection.fetch("select * from crash.lane_jump")],
            cluster.deaths(),
            [CountedDeath(row[0], row[1], process_at(row[2])) for row in await connection.fetch(COUNTED_DEATHS)],
        )
    finally:
        await connection.close()


STATE = f"select key, data from headrace.state where subscription = '{NAME}.' || $1 and state = $2"
DEAD = 'select topic, partition, "offset" from headrace.dead_letter'
LEDGER = """
select subscription, topic, partition, sequence, kind, first_offset, next_offset, applied, skipped, parked, dead,
       extract(epoch from committed_at)::float8 as began_at, emits
from headrace.ledger where topic = any($1::text[]) order by subscription, topic, partition, sequence
"""
CLAIMS = "select subscription, topic, partition, next_offset from headrace.claim where topic = any($1::text[])"
COUNTED_DEATHS = "select distinct subscription, partition, address, xact from crash.counted_death"
BOOKINGS = "select account, number from booking order by account, number"


async def _lists(connection: asyncpg.Connection, subscription: str, state: str) -> dict[str, array[int]]:
    rows = await connection.fetch(STATE, subscription, state)
    return {row["key"]: array("I", json.loads(row["data"])["numbers"]) for row in rows}


def _ledger_row(row: asyncpg.Record) -> LedgerRow:
    emits = unpack_emits(row["emits"]) if row["emits"] else ()
    ids = tuple(decode_record(record)[0].id for record in emits)
    return LedgerRow((row[0], row[1], row[2]), *tuple(row)[3:-1])._replace(emitted=ids)


def _calls(file: Path) -> list[Call]:
    return [Call(*json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


async def _memory(worker: Worker) -> list[str]:
    async with http_client(timeout=30) as client:
        answer = await client.get(f"{worker.service.url}/memory")
    told: list[str] = answer.raise_for_status().json()
    return told


def _told(cluster: Cluster) -> tuple[set[Fenced], set[str]]:
    """Read in what the processes have written which claims they lost, and which partitions they refused."""
    fenced, refused = set[Fenced](), set[str]()
    for worker in cluster.workers:
        for line in worker.service.output.splitlines():
            if (lost := LOST.search(line)) is not None:
                fenced.add(Fenced((lost[1], lost[2], int(lost[3])), int(lost[4])))
            elif "partition refused" in line and SIDE not in line:
                refused.add(line)
    return fenced, refused


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
