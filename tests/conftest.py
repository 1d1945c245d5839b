"""What tests ask for by name: real servers for the session, a fresh database and a topic name for each test.

| fixture | what it is |
| --- | --- |
| `kafka` | the session's `KafkaServer` (`.bootstrap`, `.url`, `.create_topic(name, partitions)`); leave it running |
| `brokers` | two `KafkaServer`s of one cluster, of this test's own: it may stop and pause them |
| `postgres` | the session's `PostgresServer` (`.url`, `.database()`); leave it running |
| `database_url` | the address of a fresh, migrated database of this test's own |
| `pool` | an asyncpg pool on it, as the platform opens one |
| `topic_name` | a name that is this test's own: one grep in the broker's log tells its story |

A test that stops, kills or pauses a server makes its own `KafkaServer()` or `PostgresServer()`.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from headrace.database.pool import open_pool
from headrace.settings import Settings
from tests.support.kafka import KafkaServer
from tests.support.postgres import PostgresServer

LONG = [
    "crash/test_exactness_on_kafka.py",
    "crash/test_order.py",
    "crash/test_exactness_on_the_embedded_log.py",
    "crash/test_poisoned_event.py",
    "integration/log/test_kafka_outages.py",
    "integration/test_supervision.py",
    "conformance/test_kafka_log.py",
    "integration/cli/test_run.py",
    "integration/engine/test_deaf_handlers.py",
    "integration/log/test_kafka_members.py",
]
"""Files that take the longest, the longest first. They start first, so that no worker ends on one alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first, and otherwise leave the order as it is."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def kafka() -> AsyncIterator[KafkaServer]:
    server = KafkaServer(os.environ.get("HEADRACE_TEST_KAFKA"))
    try:
        await server.start()
        yield server
    finally:
        await server.stop()


@pytest_asyncio.fixture
async def brokers() -> AsyncIterator[list[KafkaServer]]:
    first = KafkaServer()
    second = KafkaServer(beside=first)
    try:
        await first.start()
        await second.start()
        yield [first, second]
    finally:
        await second.stop()
        await first.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres() -> AsyncIterator[PostgresServer]:
    server = PostgresServer(os.environ.get("HEADRACE_TEST_POSTGRES"))
    try:
        await server.start()
        yield server
    finally:
        await server.stop()


@pytest_asyncio.fixture
async def database_url(postgres: PostgresServer) -> AsyncIterator[str]:
    async with postgres.database() as url:
        yield url


@pytest_asyncio.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    opened = await open_pool(Settings(), database_url)
    yield opened
    opened.terminate()


@pytest.fixture
def topic_name(request: pytest.FixtureRequest) -> str:
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", request.node.name)[:50].strip("-.")
    return f"{readable}-{secrets.token_hex(4)}"
