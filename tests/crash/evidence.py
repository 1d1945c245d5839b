"""What is there at the end of a run: the log read from its beginning, and the tables."""

from __future__ import annotations

import asyncio
import json
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import asyncpg
import msgspec
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from headrace.audit.snapshot import audit, groups
from tests.crash.cluster import NAME, Cluster
from tests.crash.history import History
from tests.crash.load import MARK

WINDOW_IDS = 200_000
ECHOES = f"{NAME}-echoes"
Position = tuple[str, int, int]
"""Topic, partition, offset."""


class Data(msgspec.Struct):
    """The data of an event."""

    key: str
    number: int
    trouble: str = ""
    echoes: bool = False


class Structured(msgspec.Struct):
    """An event as the platform itself writes it into a record."""

    id: str
    data: Data


class LedgerRow(NamedTuple):
    """A row of the ledger; `place` is subscription, topic and partition."""

    place: tuple[str, str, int]
    sequence: int
    kind: int
    first_offset: int
    next_offset: int
    applied: int
    skipped: int
    parked: int
    dead: int


@dataclass
class Log:
    """One topic as a reader of committed records sees it."""

    numbers: defaultdict[str, array[int]] = field(default_factory=lambda: defaultdict(lambda: array("I")))
    """What has to be applied to each key, in the order of first copies."""
    rejected: set[Position] = field(default_factory=set)
    """First copies of events that are given up on."""
    malformed: set[Position] = field(default_factory=set)
    echoed: set[tuple[str, int]] = field(default_factory=set)
    """Events whose handler emits."""
    ids: defaultdict[tuple[str, int], set[str]] = field(default_factory=lambda: defaultdict(set))
    """The ids under which an event is there; of emitted events alone."""
    records: Counter[int] = field(default_factory=Counter)
    """Visible records by partition."""
    strange: list[str] = field(default_factory=list)
    """What nobody has published, as far as is known."""


@dataclass
class Evidence:
    """What the checkers compare."""

    history: History
    logs: dict[str, Log]
    states: dict[str, dict[str, array[int]]]
    """The lists by subscription and key."""
    dead: Counter[Position]
    ledger: list[LedgerRow]
    claims: dict[tuple[str, str, int], int]
    """Where each claim stands."""
    findings: list[str]
    """What the platform's own audit says."""


async def collect(cluster: Cluster, history: History) -> Evidence:
    """Read everything."""
    logs = await asyncio.to_thread(read_logs, cluster.bootstrap, cluster.plan.partitions)
    connection = await asyncpg.connect(cluster.url)
    try:
        return Evidence(
            history,
            logs,
            {name: await _lists(connection, f"{NAME}.{name}") for name in ("lists", "echoes")},
            Counter([tuple(row) for row in await connection.fetch(DEAD)]),
            [_ledger_row(row) for row in await connection.fetch(LEDGER)],
            {(row[0], row[1], row[2]): row[3] for row in await connection.fetch(CLAIMS)},
            [each for name in await groups(connection) for each in await _findings(connection, name)],
        )
    finally:
        await connection.close()


DEAD = 'select topic, partition, "offset" from headrace.dead_letter'
LEDGER = """
select subscription, topic, partition, sequence, kind, first_offset, next_offset, applied, skipped, parked, dead
from headrace.ledger order by subscription, topic, partition, sequence
"""
CLAIMS = "select subscription, topic, partition, next_offset from headrace.claim"


async def _lists(connection: asyncpg.Connection, group: str) -> dict[str, array[int]]:
    rows = await connection.fetch("select key, data from headrace.state where subscription = $1", group)
    return {row["key"]: array("I", json.loads(row["data"])["numbers"]) for row in rows}


def _ledger_row(row: asyncpg.Record) -> LedgerRow:
    return LedgerRow((row[0], row[1], row[2]), *tuple(row)[3:])


async def _findings(connection: asyncpg.Connection, group: str) -> Sequence[str]:
    report = await audit(connection, group, WINDOW_IDS)
    return [f"{group}: {finding.detail}" for finding in report.findings]


def read_logs(bootstrap: str, partitions: int) -> dict[str, Log]:
    """Read both topics from their beginning to their end."""
    return {
        NAME: _read(bootstrap, NAME, partitions, is_emitted=False),
        ECHOES: _read(bootstrap, ECHOES, partitions, is_emitted=True),
    }


def _read(bootstrap: str, topic: str, partitions: int, *, is_emitted: bool) -> Log:
    log, seen = Log(), set[tuple[str, int]]()
    for message in _messages(bootstrap, topic, partitions):
        place = (topic, message.partition() or 0, message.offset() or 0)
        headers = dict(message.headers() or [])
        log.records[place[1]] += 1
        if MARK in headers:
            log.malformed.add(place)
            continue
        try:
            event_id, data = _event(message.value() or b"", headers)
        except (msgspec.MsgspecError, KeyError) as error:
            log.strange.append(f"{place}: {error}")
            continue
        identity = (data.key, data.number)
        if is_emitted:
            log.ids[identity].add(event_id)
        if identity in seen:
            continue
        seen.add(identity)
        if data.trouble == "reject":
            log.rejected.add(place)
            continue
        log.numbers[data.key].append(data.number)
        if data.echoes:
            log.echoed.add(identity)
    return log


_data = msgspec.json.Decoder(Data).decode
_structured = msgspec.json.Decoder(Structured).decode


def _event(value: bytes, headers: Mapping[str, str | bytes | None]) -> tuple[str, Data]:
    """Return the id and the data of an event. Raises: MsgspecError, KeyError."""
    event_id = headers.get("ce_id")
    if isinstance(event_id, bytes):
        return event_id.decode(), _data(value)
    event = _structured(value)
    return event.id, event.data


def _messages(bootstrap: str, topic: str, partitions: int) -> Iterator[Message]:
    """Yield every committed record, in order per partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "crash-evidence",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    try:
        consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
        open_ = partitions
        while open_:
            for message in consumer.consume(10_000, 10.0):
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    open_ -= 1
                else:
                    raise RuntimeError(f"{topic} cannot be read: {error}")
    finally:
        consumer.close()
