"""Three brokers, of which one dies: what two can keep goes on, and what they cannot is answered with 503 and waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

import httpx
import pytest_asyncio

from headrace.log.partitioner import partition_for
from headrace.runtime import Runtime
from headrace.settings import Settings
from tests.integration.guards.support import assert_unavailable, impatient, publish_all
from tests.support.auditing import assert_promises_hold
from tests.support.kafka import KafkaServer
from tests.support.platform import client, has_pages, notebook, running, sample, settings_for, until_settled
from tests.support.services import echoing, noted_numbers
from tests.support.waiting import until

REPLICATED = {"offsets.topic.replication.factor": "3"}
PAGES = [f"page-{number}" for number in range(12)]


@pytest_asyncio.fixture
async def three() -> AsyncIterator[list[KafkaServer]]:
    """A cluster of three, whose first broker is the controller."""
    first = KafkaServer(properties=REPLICATED)
    servers = [first, *(KafkaServer(beside=first, properties=REPLICATED) for _ in range(2))]
    async with AsyncExitStack() as stack:
        for server in servers:
            stack.push_async_callback(server.stop)
        await first.start()
        await asyncio.gather(*(server.start() for server in servers[1:]))
        yield servers


def on_all(servers: Sequence[KafkaServer], database_url: str) -> Settings:
    """Return settings that name every broker."""
    log = f"kafka://{','.join(server.bootstrap for server in servers)}"
    return impatient(settings_for(database_url, log))


async def is_unavailable(http: httpx.AsyncClient, page: str, number: int) -> bool:
    """True for a 503, False for a 202 of the same event before the cluster knew."""
    answer = await http.post(
        "/events/noted", json={"page": page, "number": number}, headers={"Idempotency-Key": f"{page}-{number}"}
    )
    if answer.status_code == 202:
        return False
    assert_unavailable(answer)
    return True


async def test_dead_broker_stops_only_what_two_cannot_keep(
    three: list[KafkaServer], database_url: str, topic_name: str
) -> None:
    """Events have two replicas, emitted ones three, and both need two in sync: partition 2 lacks one of its two."""
    first, _, third = three
    await first.create_topic_on(topic_name, [[1, 2], [2, 1], [3, 1]], min_insync_replicas="2")
    await first.create_topic_on(f"{topic_name}-echoes", [[3, 1, 2]] * 3, min_insync_replicas="2")
    short = [page for page in PAGES if partition_for(page.encode(), 3) == 2]
    kept = [page for page in PAGES if page not in short]
    assert len(short) > 1, "partition 2 has pages"
    platform = echoing(on_all(three, database_url), topic_name, lambda event: None, "sync")
    async with running(platform) as runtime, client(platform) as http:
        await publish_all(http, PAGES, 1)
        await until_settled(runtime, "notes", "echoes")
        await third.kill()
        await until(lambda: is_unavailable(http, short[0], 2), "partition 2 has too few replicas", 60)
        await publish_all(http, kept, 2)
        await until(lambda: _has_echoes(runtime, len(PAGES) + len(kept)), "the others are applied, and emit", 60)
        assert await is_unavailable(http, short[1], 2)
        late = notebook(on_all(three, database_url), topic_name, service="late")
        async with running(late) as other:
            await until(lambda: has_pages(other, {page: [1, 2] for page in kept}), "a service starts as ever", 60)
        await third.start()
        await publish_all(http, short, 2)
        await publish_all(http, PAGES, 3)
        await until_settled(runtime, "notes", "echoes", seconds=60)
        assert await noted_numbers(runtime) == {page: [1, 2, 3] for page in PAGES}
        assert sorted(await _echoes(runtime)) == sorted([1, 2, 3] * len(PAGES))
        assert sample(runtime, "events_parked_total") == 0
    await assert_promises_hold(database_url)


async def _echoes(runtime: Runtime) -> list[int]:
    return (await noted_numbers(runtime, "echoes")).get("all", [])


async def _has_echoes(runtime: Runtime, count: int) -> bool:
    return len(await _echoes(runtime)) == count
