"""A process that is killed amid its calls: the next one makes them again, with the same keys, in order per key."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import asyncpg
import pytest

from tests.support.auditing import assert_promises_hold
from tests.support.postgres import PostgresServer
from tests.support.service import Service
from tests.support.waiting import until
from tests.support.web import http_client

CUSTOMERS, EACH, KILLS = 20, 40, 4


@pytest.mark.timeout(180)
async def test_killed_process_leaves_its_calls_to_the_next(tmp_path: Path, postgres: PostgresServer) -> None:
    file = tmp_path / "mails"
    async with postgres.database() as url:
        settings = {"APP_FILE": str(file), "HEADRACE_LOG": "embedded", "HEADRACE_DATABASE": url}
        service = Service(tmp_path, settings, app="tests.apps.mails:app")
        pool = await asyncpg.create_pool(url, min_size=1, max_size=2)
        try:
            await service.start()
            await _publish(service)
            for kill in range(KILLS):
                seen = (kill + 1) * CUSTOMERS * EACH // (KILLS + 2)
                await until(lambda seen=seen: len(_lines(file)) >= seen, f"{seen} calls are made", 60)  # type: ignore[misc]
                await service.kill()
                await service.start()
            done = "select count(*) = 0 from headrace.effect"
            await until(lambda: pool.fetchval(done), "every call is done", 60)
            mailed = "select count(distinct (key, value)) from headrace.log_record where topic = 'mailed'"
            await until(lambda: _is(pool, mailed, CUSTOMERS * EACH), "and each has told so", 60)
            _judge(_lines(file))
            await assert_promises_hold(url)
        finally:
            await service.stop()
            await pool.close()


def _judge(lines: list[tuple[str, str, int, str]]) -> None:
    """Every call was made, first ones in order of their key, and each event has one key however often it was made."""
    first: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    keys: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
    for what, customer, number, key in lines:
        keys[customer, number].add(key)
        if number not in first[what, customer]:
            first[what, customer].append(number)
    assert {len(each) for each in keys.values()} == {1}
    assert len(set.union(*keys.values())) == CUSTOMERS * EACH
    for what in ("charge", "mail"):
        for number in range(CUSTOMERS):
            assert first[what, f"c{number}"] == list(range(EACH))
    assert len(lines) > 2 * CUSTOMERS * EACH, "a kill came amid calls: else nothing was tested"


def _lines(file: Path) -> list[tuple[str, str, int, str]]:
    return [tuple(json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


async def _is(pool: asyncpg.Pool, query: str, expected: int) -> bool:
    return int(await pool.fetchval(query)) == expected


async def _publish(service: Service) -> None:
    events = [
        {
            "specversion": "1.0",
            "id": f"c{customer}/{number}",
            "source": "/orders",
            "type": "confirmed",
            "data": {"customer": f"c{customer}", "number": number},
        }
        for number in range(EACH)
        for customer in range(CUSTOMERS)
    ]
    async with http_client(base_url=service.url, timeout=30) as client:
        answer = await client.post(
            "/events", json=events, headers={"content-type": "application/cloudevents-batch+json"}
        )
        assert answer.status_code == 202, answer.text
