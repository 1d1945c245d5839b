"""The servers of a benchmark, with the topic that all contenders read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from bench.spans import SpanSink
from bench.wallets import Form, fill, wallet_events
from tests.support.kafka import KafkaServer
from tests.support.postgres import PostgresServer
from tests.support.wallets import Expected

ALERTS, ALERT_PARTITIONS = "alerts", 6
"""The topic of what Headrace emits."""
PEER_TABLES = (Path(__file__).parent / "peers" / "schema.sql").read_text()


@dataclass(frozen=True)
class Topic:
    """A topic that is full, and what its events come to."""

    name: str
    partitions: int
    events: int
    customers: int
    expected: Expected
    emits: int
    """How many events Headrace emits when it applies them."""


@dataclass(frozen=True)
class Servers:
    """A Kafka, a Postgres and a collector of spans, all on this machine, with default durability."""

    kafka: KafkaServer
    postgres: PostgresServer
    spans: SpanSink
    form: Form
    is_traced: bool
    topics: set[str] = field(default_factory=set)
    """Those that exist."""

    async def topic(self, name: str, partitions: int, events: int, customers: int, note_bytes: int = 0) -> Topic:
        """Return a topic that is full of so many wallet events; one of that name that exists is deleted before."""
        if name in self.topics:
            await self.kafka.delete_topic(name)
        await self.kafka.create_topic(name, partitions)
        self.topics.add(name)
        expected = Expected()
        stream = wallet_events(expected, events, customers, self.form, is_traced=self.is_traced, note_bytes=note_bytes)
        await asyncio.to_thread(lambda: fill(self.kafka.bootstrap, name, stream, self.form))
        return Topic(name, partitions, events, customers, expected, sum(expected.overdrawn.values()))

    @asynccontextmanager
    async def database(self) -> AsyncIterator[str]:
        """Yield the address of a database with the tables of all contenders, after a checkpoint."""
        async with self.postgres.database() as url:
            connection = await asyncpg.connect(url)
            await connection.execute(PEER_TABLES)
            await connection.close()
            administrator = await asyncpg.connect(self.postgres.url)
            await administrator.execute("checkpoint")
            await administrator.close()
            yield url

    @property
    def tracing(self) -> dict[str, str]:
        """The environment of a service that sends its spans, if traces are on."""
        return self.spans.environment if self.is_traced else {}


@asynccontextmanager
async def servers(form: Form, *, is_traced: bool, shared_buffers: str | None = None) -> AsyncIterator[Servers]:
    """Start the servers, and end them; Postgres with so much memory of its own, if it is said."""
    settings = {"shared_buffers": shared_buffers} if shared_buffers else {}
    kafka, postgres = KafkaServer(is_fast=True), PostgresServer(settings=settings)
    try:
        await kafka.start()
        await kafka.create_topic(ALERTS, ALERT_PARTITIONS)
        await postgres.start()
        async with SpanSink() as spans:
            yield Servers(kafka, postgres, spans, form, is_traced)
    finally:
        await postgres.stop()
        await kafka.stop()
