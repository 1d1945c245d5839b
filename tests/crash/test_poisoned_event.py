"""An event whose handler ends the process, or blocks its event loop for good: after a few deaths a dead letter."""

from __future__ import annotations

import json
from pathlib import Path

import asyncpg
import httpx
import pytest

from tests.support.auditing import assert_promises_hold
from tests.support.postgres import PostgresServer
from tests.support.service import Service
from tests.support.waiting import until
from tests.support.web import http_client

DEATHS = 12
"""More than it takes: batches shrink after two deaths at one offset, the third parks the event, its last run is one."""


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("handlers", "poison"), [("sync", "exit"), ("async", "exit"), ("async", "block")])
async def test_event_that_kills_its_process_is_parked_alone(
    tmp_path: Path, postgres: PostgresServer, handlers: str, poison: str
) -> None:
    """After a few deaths the event is parked and then a dead letter, and all others are applied."""
    async with postgres.database() as url:
        settings = {
            "APP_HANDLERS": handlers,
            "APP_POISON": poison,
            "HEADRACE_LOG": "embedded",
            "HEADRACE_DATABASE": url,
            "HEADRACE_PARTITIONS": "1",
            "HEADRACE_ENGINE_RETRY_FIRST_SECONDS": "0.1",
            "HEADRACE_ENGINE_RETRY_MAX_SECONDS": "0.5",
        }
        service = Service(tmp_path, settings, app="tests.apps.poison:app")
        pool = await asyncpg.create_pool(url, min_size=1, max_size=2)
        try:
            cups = [_cup(who, number) for number in range(10) for who in ("ada", "bob")]
            cups.insert(13, _cup("eve", 1, is_poisoned=True))
            cups.append(_cup("eve", 2))
            await service.start()
            await _publish(service, cups)
            assert await pool.fetchval("select count(*) from headrace.log_record") == len(cups)

            deaths = await _live(service, pool)
            assert 3 <= deaths < DEATHS
            rows = await pool.fetch("select key, data from headrace.state where subscription = 'poison.drinkers'")
            found = {row["key"]: json.loads(row["data"])["cups"] for row in rows}
            assert found == {"ada": list(range(10)), "bob": list(range(10)), "eve": [2]}
            (letter,) = await pool.fetch("select reason, error, event_id from headrace.dead_letter")
            assert (letter["reason"], letter["event_id"]) == ("gave_up", "eve/1")
            assert "the process died each time while this event was being handled" in letter["error"]

            for _ in range(3):  # roll-outs are no deaths
                assert await service.leave() == 0
                assert await pool.fetchval("select crashes from headrace.claim") == 0
                await service.start()
            await _publish(service, [_cup("eve", 3)])
            await until(lambda: _is_settled(pool), "the new event is applied")
            assert await pool.fetchval("select count(*) from headrace.dead_letter") == 1
            await assert_promises_hold(url)
        finally:
            await service.stop()
            await pool.close()


async def _live(service: Service, pool: asyncpg.Pool) -> int:
    """Start the service again whenever it has died, as Kubernetes does, until all is done. Returns its deaths."""
    deaths = 0
    while True:
        await until(lambda: _has_died_or_settled(service, pool), "the service is dead or done", 60)
        if service.is_running:
            return deaths
        deaths += 1
        assert deaths < DEATHS, service.output[-3_000:]
        await service.start(ready=False)


async def _has_died_or_settled(service: Service, pool: asyncpg.Pool) -> bool:
    return not service.is_running or await _is_settled(pool)


async def _is_settled(pool: asyncpg.Pool) -> bool:
    sql = "select (select next_offset from headrace.claim) = (select count(*) from headrace.log_record)"
    return bool(await pool.fetchval(sql)) and await pool.fetchval("select count(*) from headrace.lane") == 0


async def _publish(service: Service, cups: list[dict[str, object]]) -> None:
    """Send the events. The service may die of them before it answers."""
    content_type = {"content-type": "application/cloudevents-batch+json"}
    async with http_client(base_url=service.url, timeout=30) as client:
        try:
            answer = await client.post("/events", json=cups, headers=content_type)
        except httpx.TransportError:
            return
        assert answer.status_code == 202, answer.text


def _cup(who: str, cup: int, *, is_poisoned: bool = False) -> dict[str, object]:
    return {
        "specversion": "1.0",
        "id": f"{who}/{cup}",
        "source": "/tavern",
        "type": "drunk",
        "data": {"who": who, "cup": cup, "is_poisoned": is_poisoned},
    }
