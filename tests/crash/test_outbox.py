"""Processes whose routes write rows and emit are killed again and again: each event takes effect once, in order."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import httpx
import pytest

from headrace.database.embedded import running_address
from tests.apps.bookings import TABLES
from tests.support.fleet import SETTINGS
from tests.support.kafka import KafkaServer
from tests.support.postgres import PostgresServer
from tests.support.service import Service
from tests.support.waiting import until
from tests.support.web import http_client

KILLS = 6
CLIENTS = 8
ACCOUNTS = [f"account-{number}" for number in range(6)]
EACH_LIFE = 60
SEED = 11


@dataclass
class Bookings:
    """What clients of their own book at the services, each request until it was answered."""

    urls: list[str]
    answered: int = 0
    repeated: int = 0
    is_over: bool = False
    clients: list[asyncio.Task[None]] = field(default_factory=list)

    async def run(self, number: int) -> None:
        """Be one client: all share the accounts, so that transactions of one key overlap."""
        chance, sent = random.Random(SEED * 1_000 + number), 0
        async with http_client(timeout=5) as client:
            while not self.is_over:
                sent += 1
                path = f"/bookings/{chance.choice(ACCOUNTS)}/{number}-{sent}"

                async def is_booked(path: str = path) -> bool:
                    try:
                        answer = await client.post(chance.choice(self.urls) + path)
                    except httpx.TransportError:
                        self.repeated += 1
                        return False
                    assert answer.status_code in (201, 503), answer.text
                    return answer.status_code == 201

                await until(is_booked, f"{path} is answered", 60)
                self.answered += 1

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """Book as long as the block runs."""
        self.clients = [asyncio.create_task(self.run(number)) for number in range(CLIENTS)]
        try:
            yield
            self.is_over = True
            await asyncio.gather(*self.clients)
        finally:
            for client in self.clients:
                client.cancel()
            await asyncio.gather(*self.clients, return_exceptions=True)

    async def go_on(self) -> None:
        """Wait until more is booked."""
        wanted = self.answered + EACH_LIFE
        await until(lambda: self.answered >= wanted, f"{wanted} bookings are answered", 60)


@pytest.mark.timeout(300)
async def test_each_committed_row_takes_effect_once_through_kills(
    tmp_path: Path, kafka: KafkaServer, postgres: PostgresServer, topic_name: str
) -> None:
    """Two processes on Kafka and one Postgres; one is killed each time, the other one takes its part of the outbox."""
    await kafka.create_topic(topic_name, 3)
    async with postgres.database() as url:
        settings = {"HEADRACE_LOG": kafka.url, "HEADRACE_DATABASE": url, "HEADRACE_PARTITIONS": "3", **SETTINGS}
        settings |= {"APP_NAME": topic_name, "HEADRACE_ENGINE_RETRY_MAX_SECONDS": "15"}
        services = [Service(tmp_path, settings, app="tests.apps.bookings:app") for _ in range(2)]
        connection = await asyncpg.connect(url)
        await connection.execute(TABLES)
        try:
            await asyncio.gather(*(service.start() for service in services))
            bookings, chance = Bookings([service.url for service in services]), random.Random(SEED)
            async with bookings.going_on():
                for _ in range(KILLS):
                    await bookings.go_on()
                    victim = chance.choice(services)
                    await victim.kill()
                    await bookings.go_on()
                    await victim.start(ready=False)
                    await until(victim.is_ready, "it is back", 60)
            await _compare(connection.fetch, bookings, f"{topic_name}.books")
            for service in services:
                assert await service.leave() == 0
        finally:
            for service in services:
                await service.stop()
            await connection.close()


@pytest.mark.timeout(150)
async def test_the_embedded_outbox_survives_kills_as_well(tmp_path: Path) -> None:
    """The platform dies, its PostgreSQL with it, and both come back on the same folder."""
    settings = {"HEADRACE_LOG": "embedded", "HEADRACE_PARTITIONS": "3", "HEADRACE_ENGINE_RETRY_MAX_SECONDS": "15"}
    service = Service(tmp_path, settings, app="tests.apps.bookings:app")
    try:
        await service.start()
        connection = await asyncpg.connect(running_address(tmp_path / "data/postgres"))
        await connection.execute(TABLES)
        await connection.close()
        bookings = Bookings([service.url])
        async with bookings.going_on():
            for _ in range(3):
                await bookings.go_on()
                await service.kill()
                await service.start(ready=False)
                await until(service.is_ready, "it is back", 60)
            await bookings.go_on()
        connection = await asyncpg.connect(running_address(tmp_path / "data/postgres"))
        try:
            await _compare(connection.fetch, bookings, "bookings.books")
        finally:
            await connection.close()
        assert await service.leave() == 0
    finally:
        await service.stop()


async def _compare(fetch: Callable[..., Awaitable[list[asyncpg.Record]]], bookings: Bookings, group: str) -> None:
    rows = await fetch("select account, number from booking order by account, number")
    booked: dict[str, list[int]] = {}
    for row in rows:
        booked.setdefault(row["account"], []).append(row["number"])
    assert booked == {account: list(range(1, len(numbers) + 1)) for account, numbers in booked.items()}
    assert len(rows) == bookings.answered, "each answered booking is one row"
    assert bookings.repeated > 0, "no request was hit by a kill: the test did not test it"

    async def arrived() -> dict[str, list[int]]:
        found = await fetch("select key, data from headrace.state where subscription = $1", group)
        return {row["key"]: json.loads(row["data"])["numbers"] for row in found}

    async def are_all_there() -> bool:
        return sum(map(len, (await arrived()).values())) >= len(rows)

    with suppress(TimeoutError):
        await until(are_all_there, "every event has arrived", 60)
    assert await arrived() == booked
    assert (await fetch("select count(*) from headrace.outbox"))[0][0] == 0
    assert (await fetch("select count(*) from headrace.dead_letter"))[0][0] == 0
