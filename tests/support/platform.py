"""A real platform in the test's own process: its engine and its Postgres, on the memory log or on Kafka.

    platform = notebook(settings_for(database_url), topic_name)
    async with running(platform, MemoryLog()) as runtime:
        await publish(runtime, noted(topic_name, "page-1", 1), noted(topic_name, "page-1", 2))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"page-1": [1, 2]}

The memory log outlives a runtime: the next one that is given the same log continues behind what the first one applied.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import Any

import asyncpg
import httpx
from pydantic import BaseModel, SecretStr

from headrace import Event, Headrace, State
from headrace.engine.batch import Holding
from headrace.engine.pace import Pace
from headrace.engine.worker import Phase
from headrace.handlers.subscription import Start
from headrace.log.ports import Log, NewRecord, TopicPartition
from headrace.runtime import Runtime
from headrace.settings import DatabaseSettings, EngineSettings, KafkaSettings, Settings
from tests.support.routes import application, caller
from tests.support.waiting import until

_numbers = count()


class Notes(BaseModel):
    """What was applied to one page, in order: a lost, a doubled and an overtaken event each show."""

    numbers: list[int] = []


def settings_for(
    database_url: str, log: str = "memory", *, partitions: int = 3, pool_size: int = 10, **engine: Any
) -> Settings:
    """Return settings for a quick test: short waits, and the engine's own as given."""
    waits = {"retry_first_seconds": 0.05, "retry_max_seconds": 0.2, "drain_seconds": 10.0}
    return Settings(
        log=log,
        database=SecretStr(database_url),
        partitions=partitions,
        management_port=0,
        kafka=KafkaSettings(session_timeout_seconds=6, heartbeat_seconds=0.2),
        database_options=DatabaseSettings(idle_in_transaction_seconds=5, pool_size=pool_size),
        engine=EngineSettings(**(waits | engine)),
    )


def notebook(
    settings: Settings,
    topic: str,
    before: Callable[[Any], None] = lambda event: None,
    *,
    service: str = "notebook",
    subscription: str = "notes",
    start: Start = "earliest",
) -> Headrace:
    """Return a service that notes the numbers of a page's events; `before` may raise first."""
    platform = Headrace(service, settings)

    class Noted(Event, type="noted", topic=topic, key="page"):
        page: str
        number: int

    notes = platform.subscription(subscription, start=start)

    @notes.on(Noted)
    def note(event: Noted, kept: State[Notes]) -> None:
        before(event)
        kept.numbers.append(event.number)

    return platform


def noted(topic: str, page: str, number: int, id: str | None = None, **more: object) -> NewRecord:
    """Return the record of one event for a notebook, with an id of its own unless one is given."""
    return record(topic, "noted", {"page": page, "number": number, **more}, key=page, id=id)


def record(topic: str, type: str, data: object, *, key: str, id: str | None = None) -> NewRecord:
    """Return the record of one event, in CloudEvents binary mode."""
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", (id or f"event-{next(_numbers)}").encode()),
        ("ce_source", b"/tests"),
        ("ce_type", type.encode()),
        ("content-type", b"application/json"),
    ]
    return NewRecord(topic, key.encode(), json.dumps(data).encode(), headers)


@asynccontextmanager
async def running(
    platform: Headrace,
    log: Log | None = None,
    pool: asyncpg.Pool | None = None,
    *,
    pace: Pace | None = None,
    is_refused: bool = False,
    is_waiting: bool = False,
) -> AsyncIterator[Runtime]:
    """Run the platform, on the given log and pool or on those that its settings name.

    Yields once every partition is being read; `is_refused`: once each is read or refused and at least one is refused;
    `is_waiting`: once the platform is connected, since its partitions cannot be read yet.
    """
    runtime = Runtime(platform.settings, platform.registry, pace or PATIENT)
    runtime.log, runtime.pool = log, pool
    platform.runtime = runtime
    try:
        await runtime.start()
        await until(runtime.connected.is_set, "the platform is connected")
        if not is_waiting:
            what = "every partition is being read, or refused as expected"
            await until(lambda: _have_started(runtime, is_refused), what)
        yield runtime
    finally:
        platform.runtime = None
        await runtime.stop()


PATIENT = Pace(patience=60.0)
"""Waits for a handler that a test holds."""
QUICK = PATIENT._replace(watch=0.05, gauge=0.05, supervise=0.05)
"""Looks every twentieth of a second, so that limits may be short."""

watched = partial(running, pace=QUICK)
"""Runs the platform with a watch that looks often."""


def _have_started(runtime: Runtime, is_refused: bool) -> bool:
    crews = [consumer.workers.values() for consumer in runtime.consumers.values()]
    phases = {worker.phase for crew in crews for worker in crew}
    return (
        bool(crews)
        and all(crews)
        and phases <= {Phase.RUNNING, Phase.REFUSED}
        and (Phase.REFUSED in phases) == is_refused
    )


def client(platform: Headrace) -> httpx.AsyncClient:
    """Return a client of the platform's routes, which seems to call from this machine."""
    return caller(application(platform))


async def publish(runtime: Runtime, *records: NewRecord) -> None:
    """Append the records to the log."""
    assert runtime.log is not None
    await runtime.log.publish(records)


async def fetch(runtime: Runtime, sql: str, *arguments: object) -> list[Any]:
    """Return the rows of a query in the platform's database."""
    assert runtime.pool is not None
    return list(await runtime.pool.fetch(sql, *arguments))


async def value(runtime: Runtime, sql: str, *arguments: object) -> Any:
    """Return the first value of a query in the platform's database."""
    assert runtime.pool is not None
    return await runtime.pool.fetchval(sql, *arguments)


async def execute(database_url: str, sql: str) -> None:
    """Run a statement beside the platform, before it starts or while it runs."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


def group(runtime: Runtime, subscription: str) -> str:
    """Return what the tables call the subscription."""
    return f"{runtime.registry.service}.{subscription}"


async def states(runtime: Runtime, subscription: str, state: str) -> dict[str, Any]:
    """Return every value of a state by its key."""
    sql = "select key, data from headrace.state where subscription = $1 and state = $2"
    return {
        row["key"]: json.loads(row["data"]) for row in await fetch(runtime, sql, group(runtime, subscription), state)
    }


async def pages(runtime: Runtime) -> dict[str, list[int]]:
    """Return what a notebook holds."""
    return {page: notes["numbers"] for page, notes in (await states(runtime, "notes", "notes")).items()}


async def has_pages(runtime: Runtime, expected: dict[str, list[int]]) -> bool:
    """True when a notebook holds just these numbers for these pages; its other pages do not count."""
    found = await pages(runtime)
    return {page: found.get(page) for page in expected} == expected


async def lag(runtime: Runtime, subscription: str) -> int:
    """Return how many offsets of the log are not behind the subscription's claims."""
    assert runtime.log is not None
    topics = runtime.registry.subscriptions[subscription].topics
    infos = await runtime.log.topics(topics)
    wanted = [TopicPartition(topic, number) for topic in topics for number in range(infos[topic].partitions)]
    bounds = await runtime.log.bounds(wanted)
    rows = await fetch(
        runtime,
        "select topic, partition, next_offset from headrace.claim where subscription = $1",
        group(runtime, subscription),
    )
    claimed = {TopicPartition(row["topic"], row["partition"]): row["next_offset"] for row in rows}
    return sum(bounds[partition].end - claimed.get(partition, bounds[partition].begin) for partition in wanted)


async def until_settled(runtime: Runtime, *subscriptions: str, seconds: float = 30.0) -> None:
    """Return when the log is applied to its end, no event waits in a lane, and what was emitted is in the log.

    Name the subscriptions in the order of the flow: the ones that emit before the ones that take the emits.
    """

    async def is_settled() -> bool:
        for subscription in subscriptions:
            lanes = "select count(*) from headrace.lane where subscription = $1"
            # Lag first: a batch that commits between the two questions would be missed by the other order.
            if await lag(runtime, subscription) or await value(runtime, lanes, group(runtime, subscription)):
                return False
            if not await _has_emitted(runtime, subscription):
                return False
        return True

    await until(is_settled, f"{', '.join(subscriptions)}: lag is zero and no lane is left", seconds)


async def _has_emitted(runtime: Runtime, subscription: str) -> bool:
    """True where this process's owners know of every batch that Postgres has, and the log has all their emits."""
    sql = "select topic, partition, sequence from headrace.claim where subscription = $1"
    committed = {
        (row["topic"], row["partition"]): row["sequence"]
        for row in await fetch(runtime, sql, group(runtime, subscription))
    }
    return all(
        holding.claim.sequence == committed[holding.claim.partition] and not holding.relay.pending
        for holding in holdings(runtime, subscription)
    )


def holdings(runtime: Runtime, subscription: str) -> list[Holding]:
    """Return what this process holds of the subscription's partitions."""
    workers = runtime.consumers[subscription].workers.values()
    return [holding for worker in workers if worker.tenure for holding in worker.tenure.holdings.values()]


def sample(runtime: Runtime, name: str, **labels: str) -> float:
    """Return a metric's value, summed over the labels that are not named."""
    return sum(
        found.value
        for metric in runtime.metrics.registry.collect()
        for found in metric.samples
        if found.name == f"headrace_{name}" and labels.items() <= found.labels.items()
    )


def spread(topic: str, pages: Sequence[str], each: int) -> list[NewRecord]:
    """Return `each` events for each page, numbered from 1 and interleaved."""
    return [noted(topic, page, number) for number in range(1, each + 1) for page in pages]
