"""The keys that wait for a retry: what is shown of them, and what a retry asks of their owner."""

from __future__ import annotations

from typing import Any

import asyncpg
import httpx
import pytest

from headrace.queries.lane_store import Filter, retry
from tests.integration.http.conftest import Opener

LANE = """
insert into headrace.lane (subscription, partition, key, attempts, due_at, error)
values ($1, $2, $3, 4, now() + interval '1 hour', 'no ink')
"""
PARKED = """
insert into headrace.parked (subscription, partition, key, number, topic, "offset", "timestamp", value, headers, source,
                             event_id, type, reason)
values ($1, $2, $3, $4::bigint, 'wallets', 10 * $4::bigint, 0, '', '', '/s', $4::bigint::text,
        'wallet.credited', 'handler_error')
"""


async def park(pool: asyncpg.Pool[Any], key: bytes, *, group: str = "shop.wallets", partition: int = 0) -> None:
    """Park two events of a key."""
    await pool.execute(LANE, group, partition, key)
    for number in (8, 7):
        await pool.execute(PARKED, group, partition, key, number)


async def due(pool: asyncpg.Pool[Any]) -> set[tuple[str, bytes]]:
    """The lanes that are due."""
    rows = await pool.fetch("select subscription, key from headrace.lane where due_at <= now()")
    return {(row["subscription"], row["key"]) for row in rows}


async def keys(client: httpx.AsyncClient, **query: Any) -> list[str]:
    """The listed keys."""
    answer = await client.get("/subscriptions/wallets/lanes", params=query)
    return [lane["key"] for lane in answer.json()["lanes"]]


async def test_a_lane_tells_why_and_when(platform: Opener, pool: asyncpg.Pool[Any]) -> None:
    await park(pool, b"ada", partition=2)
    shop = await platform(pool=pool)
    async with shop.client() as client:
        page = (await client.get("/subscriptions/wallets/lanes")).json()
    (lane,) = page["lanes"]
    assert page["next"] is None
    assert lane.pop("parked_at") < lane.pop("next_attempt_at")
    assert lane == {
        "subscription": "wallets",
        "partition": 2,
        "key": "ada",
        "attempts": 4,
        "events": 2,
        "error": "no ink",
        "error_type": None,
        "handler": None,
        "held": False,
        "head": {
            "type": "wallet.credited",
            "source": "/s",
            "event_id": "7",
            "topic": "wallets",
            "partition": 2,
            "offset": 70,
            "reason": "handler_error",
        },
    }


async def test_lanes_come_page_by_page(platform: Opener, pool: asyncpg.Pool[Any]) -> None:
    for number in range(7):
        await park(pool, f"k{number}".encode(), partition=number % 3)
    shop = await platform(pool=pool)
    seen: list[str] = []
    cursor: dict[str, str] = {}
    async with shop.client() as client:
        while True:
            page = (await client.get("/subscriptions/wallets/lanes", params={"limit": 3, **cursor})).json()
            seen += [lane["key"] for lane in page["lanes"]]
            if page["next"] is None:
                break
            cursor = {"cursor": page["next"]}
    assert seen == ["k0", "k3", "k6", "k1", "k4", "k2", "k5"]


async def test_a_lane_is_found_by_its_key(platform: Opener, pool: asyncpg.Pool[Any]) -> None:
    for key in (b"ada", "Zürich/\x00".encode()):
        await park(pool, key)
    await park(pool, b"ada", group="other.wallets")
    shop = await platform(pool=pool)
    async with shop.client() as client:
        assert await keys(client, key="ada") == ["ada"]
        assert await keys(client, key="Zürich/\x00") == ["Zürich/\x00"]
        assert await keys(client, key="bob") == []


async def test_one_lane_is_retried_or_all(platform: Opener, pool: asyncpg.Pool[Any]) -> None:
    """The owner is told by a mark of the subscription, since what it remembers of due times is old."""
    mark = "select retry_requested_at from headrace.subscription where subscription = 'shop.wallets'"
    for group in ("shop.wallets", "other.wallets"):
        for key in (b"ada", b"bob", b"eve"):
            await park(pool, key, group=group)
    shop = await platform(pool=pool)
    async with shop.client() as client:
        one = await client.post("/subscriptions/wallets/lanes/retry", params={"key": "ada"})
        assert (one.status_code, one.json()) == (200, {"name": "wallets", "lanes": 1})
        assert await due(pool) == {("shop.wallets", b"ada")}
        first = await pool.fetchval(mark)
        every = await client.post("/subscriptions/wallets/lanes/retry")
        assert every.json() == {"name": "wallets", "lanes": 3}
        assert await due(pool) == {("shop.wallets", key) for key in (b"ada", b"bob", b"eve")}
        assert await pool.fetchval(mark) > first
        assert (await client.get("/subscriptions/wallets")).json()["paused"] is False


@pytest.mark.parametrize("name", ["handler", "error_type", "key"])
async def test_empty_name_means_no_lane_and_not_all(platform: Opener, pool: asyncpg.Pool[Any], name: str) -> None:
    """As a script asks whose variable is not set."""
    await park(pool, b"ada")
    shop = await platform(pool=pool)
    async with shop.client() as client:
        assert await keys(client, **{name: ""}) == []
        await client.post("/subscriptions/wallets/lanes/retry", params={name: ""})
    assert await due(pool) == set()
    async with pool.acquire() as connection:
        assert await retry(connection, Filter(subscription="")) == 0


async def test_a_retry_leaves_a_pause_alone(platform: Opener, pool: asyncpg.Pool[Any]) -> None:
    await park(pool, b"ada")
    shop = await platform(pool=pool)
    async with shop.client() as client:
        await client.post("/subscriptions/wallets/pause")
        await client.post("/subscriptions/wallets/lanes/retry")
        assert (await client.get("/subscriptions/wallets")).json()["paused"] is True


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/subscriptions/purses/lanes", 404),
        ("POST", "/subscriptions/purses/lanes/retry", 404),
        ("POST", "/subscriptions/wallets/lanes/retry?key=nobody", 404),
        ("GET", "/subscriptions/wallets/lanes?limit=0", 422),
        ("GET", "/subscriptions/wallets/lanes?cursor=%25%25", 422),
        ("GET", "/subscriptions/wallets/lanes?cursor=k6FhAaFi", 422),
        ("GET", "/subscriptions/wallets/lanes?cursor=k6FhzwAAAQAAAAAAxAA=", 422),
    ],
)
async def test_wrong_questions_about_lanes_are_refused(
    platform: Opener, pool: asyncpg.Pool[Any], method: str, path: str, status: int
) -> None:
    shop = await platform(pool=pool)
    async with shop.client() as client:
        answer = await client.request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
