"""What tests ask for by name: real servers for the run, a fresh database and a topic name for each test.

| fixture | what it is |
| --- | --- |
| `kafka` | the run's `KafkaServer` (`.bootstrap`, `.url`, `.create_topic(name, partitions)`); leave it running |
| `brokers` | two `KafkaServer`s of one cluster, of this test's own: it may stop and pause them |
| `postgres` | the process's `PostgresServer` (`.url`, `.database()`); leave it running |
| `database_url` | the address of a fresh, migrated database of this test's own |
| `pool` | an asyncpg pool on it, as the platform opens one |
| `topic_name` | a name that is this test's own: one grep in the broker's log tells its story |

A test that stops, kills or pauses a server makes its own `KafkaServer()` or `PostgresServer()`.
"""

from __future__ import annotations

import gc
import os
import re
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import hypothesis
import pytest
import pytest_asyncio

from headrace.database.pool import open_pool
from headrace.settings import Settings
from tests.support.folders import keep_files_in_memory
from tests.support.kafka import KafkaServer
from tests.support.postgres import PostgresServer
from tests.support.shared import SharedServers, shared_kafka

LONG = [
    "crash/test_machine.py",
    "crash/test_order.py",
    "crash/test_exactness_on_kafka.py",
    "integration/test_supervision.py",
    "crash/test_orders.py",
    "crash/test_outbox.py",
    "integration/cli/test_run.py",
    "integration/test_wrong_setup.py",
    "crash/test_exactness_on_the_embedded_log.py",
    "integration/guards/test_kafka_connections.py",
    "integration/log/test_kafka_outages.py",
    "integration/log/test_kafka_partitions.py",
    "integration/engine/test_groups_on_kafka.py",
    "crash/test_poisoned_event.py",
    "integration/cli/test_operations.py",
    "integration/guards/test_three_brokers.py",
    "integration/guards/test_postgres_refuses.py",
    "integration/guards/test_turned_clocks.py",
    "integration/test_wheel.py",
    "integration/test_servers.py",
    "integration/engine/test_deaf_handlers.py",
    "integration/log/test_kafka_members.py",
    "conformance/test_kafka_log.py",
]
"""Files that take the longest, the longest first. They start first, so that no worker ends on one alone."""


hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")  # a machine that has other work to do makes no test fail

SERVERS = pytest.StashKey[SharedServers]()


def pytest_configure(config: pytest.Config) -> None:
    """Share servers between the processes of the run: the first one has them, the workers of pytest-xdist ask it."""
    if not hasattr(config, "workerinput"):
        keep_files_in_memory()
        config.stash[SERVERS] = SharedServers()
        config.stash[SERVERS].start()


def pytest_unconfigure(config: pytest.Config) -> None:
    if SERVERS in config.stash:
        config.stash[SERVERS].stop()


def pytest_xdist_auto_num_workers() -> int:
    """Twice as many processes as processors (`-n auto`), since most tests wait for a server; each has a PostgreSQL."""
    return min(2 * (os.cpu_count() or 1), 8)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first, and otherwise leave the order as it is."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_collection_finish() -> None:
    """Leave what was imported and collected out of every later garbage collection."""
    gc.freeze()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def kafka() -> KafkaServer:
    named = os.environ.get("HEADRACE_TEST_KAFKA")
    return KafkaServer(named) if named else await shared_kafka()


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
    server = PostgresServer(os.environ.get("HEADRACE_TEST_POSTGRES"), is_durable=False)
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
