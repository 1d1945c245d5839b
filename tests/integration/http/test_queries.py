"""State, subscriptions and dead letters, as Postgres and the log have them."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import msgspec
import pytest

from headrace.errors import TransportError
from headrace.log.memory import MemoryLog
from headrace.log.ports import Bounds, NewRecord, TopicPartition
from tests.integration.http.conftest import Opener

CLAIM = """
insert into headrace.claim (subscription, topic, partition, epoch, token, owner, claimed_offset, next_offset)
values ('shop.wallets', 'wallets', $1, 4, gen_random_uuid(), 'pod-1', 0, $2)
"""
PARK = """
insert into headrace.parked (subscription, partition, key, number, topic, "offset", "timestamp", value, headers, source,
                             event_id, type, reason)
values ('shop.wallets', 0, $1, $2, 'wallets', $2, 0, '', '', '/s', '1', 'wallet.credited', 'handler_error')
"""
BURY = """
insert into headrace.dead_letter (id, subscription, topic, partition, "offset", "timestamp", key, record_key, value,
                                  headers, reason, error, created_at)
values ($1, $2, 'wallets', 0, $3::bigint, 1000, $4, $4, $5, $6, $7, 'why', now() + $3::bigint * interval '1 second')
"""
NOBODY = "00000000-0000-0000-0000-000000000000"


def letter_id(number: int) -> UUID:
    """The id of a test's dead letter."""
    return UUID(int=number)


async def bury(
    pool: asyncpg.Pool[Any],
    number: int,
    *,
    subscription: str = "shop.wallets",
    reason: str = "decode",
    value: bytes = b"{",
) -> None:
    """Write a dead letter."""
    headers = msgspec.msgpack.encode([("ce_id", b"1"), ("odd", b"\xff")])
    await pool.execute(BURY, letter_id(number), subscription, number, b"ada", value, headers, reason)


async def numbers(client: httpx.AsyncClient, **query: Any) -> list[int]:
    """The listed dead letters."""
    answer = await client.get("/dead-letters", params=query)
    return [UUID(letter["id"]).int for letter in answer.json()["dead_letters"]]


@pytest.mark.parametrize("key", ["ada", "a/b", "Zürich 😀", "a b?c#d%2F"])
async def test_a_state_is_returned_as_it_is_with_its_version(
    platform: Opener, pool: asyncpg.Pool[Any], key: str
) -> None:
    await pool.execute(
        "insert into headrace.state values ('shop.wallets', 'wallet', $1, 0, 7, '{\"balance\": 5}')", key
    )
    shop = await platform(pool=pool)
    async with shop.client() as client:
        answer = await client.get("/state/wallets/wallet/" + "".join(f"%{byte:02X}" for byte in key.encode()))
    assert (answer.status_code, answer.json()) == (200, {"balance": 5})
    assert answer.headers["headrace-version"] == "7"
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "path", ["wallets/wallet/bob", "wallets/wallet/a%00b", "wallets/purse/ada", "purses/wallet/ada"]
)
async def test_a_state_that_is_not_there_is_404(platform: Opener, pool: asyncpg.Pool[Any], path: str) -> None:
    shop = await platform(pool=pool)
    async with shop.client() as client:
        answer = await client.get(f"/state/{path}")
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found")


async def test_subscriptions_tell_what_each_partition_does(platform: Opener, pool: asyncpg.Pool[Any]) -> None:
    """Its owner, its lag and its parked keys."""
    log = MemoryLog()
    shop = await platform(pool=pool, log=log)
    records = [NewRecord("wallets", f"c{number}".encode(), b"{}", []) for number in range(30)]
    await log.publish(records)
    ends = await log.bounds([TopicPartition("wallets", number) for number in range(3)])
    await pool.execute(CLAIM, 0, 1)
    for key, number in ((b"ada", 1), (b"ada", 2), (b"bob", 3)):
        await pool.execute(PARK, key, number)
    async with shop.client() as client:
        listed = (await client.get("/subscriptions")).json()["subscriptions"]
        one = (await client.get("/subscriptions/wallets")).json()
    assert listed == [one]
    first, second, third = one["partitions"]
    end = ends[TopicPartition("wallets", 0)].end
    assert first | {"committed_at": None} == {
        "topic": "wallets",
        "partition": 0,
        "owner": "pod-1",
        "epoch": 4,
        "next_offset": 1,
        "end_offset": end,
        "lag": end - 1,
        "held_back": 0,
        "parked_keys": 2,
        "parked_events": 3,
        "full": False,
        "committed_at": None,
    }
    assert (second["owner"], second["next_offset"], third["owner"]) == (None, None, None)
    assert (one["lag"], one["lag_unknown"], one["parked_keys"], one["parked_events"]) == (29, None, 2, 3)
    assert one["paused"] is False


async def test_without_the_log_the_lag_is_unknown_and_the_rest_is_told(
    platform: Opener, pool: asyncpg.Pool[Any]
) -> None:
    class AwayLog(MemoryLog):
        async def bounds(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Bounds]:
            raise TransportError("the log is away")

    await pool.execute(CLAIM, 0, 1)
    for log, reason in ((AwayLog(), "the log is away"), (None, "not connected")):
        shop = await platform(pool=pool, log=log)
        if log is None:
            shop.running.log = None
        async with shop.client() as client:
            one = (await client.get("/subscriptions/wallets")).json()
        assert one["lag"] is None
        assert reason in one["lag_unknown"]
        assert [(p["owner"], p["next_offset"], p["lag"]) for p in one["partitions"]] == [("pod-1", 1, None)]


async def test_a_subscription_is_paused_and_resumed(platform: Opener, pool: asyncpg.Pool[Any]) -> None:
    shop = await platform(pool=pool)
    async with shop.client() as client:
        for action, paused in (("pause", True), ("pause", True), ("resume", False)):
            answer = await client.post(f"/subscriptions/wallets/{action}")
            assert (answer.status_code, answer.json()) == (200, {"name": "wallets", "paused": paused})
            assert (await client.get("/subscriptions/wallets")).json()["paused"] is paused
        assert (await client.post("/subscriptions/wallets/explode")).status_code == 422
        assert (await client.post("/subscriptions/purses/pause")).status_code == 404
        assert (await client.get("/subscriptions/purses")).status_code == 404


async def test_dead_letters_are_listed_in_pages_newest_first(platform: Opener, pool: asyncpg.Pool[Any]) -> None:
    """They can be filtered, too."""
    for number in range(1, 6):
        await bury(pool, number, reason="decode" if number % 2 else "schema")
    await bury(pool, 6, subscription="shop.other")
    shop = await platform(pool=pool)
    async with shop.client() as client:
        assert await numbers(client) == [6, 5, 4, 3, 2, 1]
        assert await numbers(client, subscription="wallets", reason="schema") == [4, 2]
        assert await numbers(client, subscription="a\x00b") == []
        seen: list[int] = []
        cursor: Mapping[str, str] = {}
        while True:
            page = (await client.get("/dead-letters", params={"limit": 4, **cursor})).json()
            seen += [UUID(letter["id"]).int for letter in page["dead_letters"]]
            if page["next"] is None:
                break
            cursor = {"cursor": page["next"]}
        assert seen == [6, 5, 4, 3, 2, 1]
        for wrong in (
            {"limit": 0},
            {"limit": "many"},
            {"state": "lost"},
            {"cursor": "%%%"},
            {"cursor": "bm9uc2Vuc2U="},
            {"cursor": base64.urlsafe_b64encode(f"0001-01-01T00:00:00+23:59 {NOBODY}".encode()).decode()},
        ):
            answer = await client.get("/dead-letters", params=wrong)
            assert (answer.status_code, answer.json()["type"]) == (422, "/problems/parameters"), wrong


async def test_a_dead_letter_shows_the_record_as_it_was(platform: Opener, pool: asyncpg.Pool[Any]) -> None:
    await bury(pool, 1, value=b"\xff\xfe")
    shop = await platform(pool=pool)
    async with shop.client() as client:
        letter = (await client.get(f"/dead-letters/{letter_id(1)}")).json()
        assert (letter["key"], letter["value"], letter["value_base64"]) == ("ada", None, "//4=")
        assert letter["headers"] == [
            {"name": "ce_id", "value": "1"},
            {"name": "odd", "value": None, "value_base64": "/w=="},
        ]
        assert letter["timestamp"] == "1970-01-01T00:00:01Z"
        assert (await client.get(f"/dead-letters/{NOBODY}")).status_code == 404
        assert (await client.get("/dead-letters/seven")).status_code == 422


async def test_a_dead_letter_is_decided_once_and_the_log_says_by_whom(
    platform: Opener, pool: asyncpg.Pool[Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="headrace.dead_letters")
    for number in (1, 2):
        await bury(pool, number)
    shop = await platform(pool=pool)
    async with shop.client() as client:
        answers = await asyncio.gather(
            *(client.post(f"/dead-letters/{letter_id(1)}/{decision}") for decision in ["replay", "discard"] * 5)
        )
        assert sorted(answer.status_code for answer in answers) == [200] + [409] * 9
        assert (await client.post(f"/dead-letters/{letter_id(2)}/discard")).json()["decision"] == "discard"
        assert await numbers(client) == []
        assert await numbers(client, state="decided") == [2, 1]
        assert await numbers(client, state="all") == [2, 1]
        assert (await client.post(f"/dead-letters/{NOBODY}/replay")).status_code == 404
        assert (await client.post(f"/dead-letters/{letter_id(2)}/explode")).status_code == 422
    assert len([r for r in caplog.records if r.message == "dead letter decided"]) == 2
    assert shop.sample("dead_letters_decided_total", subscription="wallets", decision="discarded") >= 1


async def test_dead_letters_of_other_services_are_not_ours(platform: Opener, pool: asyncpg.Pool[Any]) -> None:
    """One database may hold several services; over HTTP each shows and decides its own."""
    await bury(pool, 1)
    await bury(pool, 2, subscription="shopping.wallets")
    shop = await platform(pool=pool)
    async with shop.client() as client:
        assert await numbers(client) == [1]
        assert await numbers(client, subscription="wallets") == [1]
        (letter,) = (await client.get("/dead-letters")).json()["dead_letters"]
        assert letter["subscription"] == "wallets"
        foreign = f"/dead-letters/{letter_id(2)}"
        assert (await client.get(foreign)).status_code == 404
        assert (await client.post(f"{foreign}/replay")).status_code == 404
    assert await pool.fetchval("select count(*) from headrace.dead_letter where decision is not null") == 0


@pytest.mark.parametrize("milliseconds", [1_700_000_000_000_000_000, 2**63 - 1, -(2**63), -1, 0, 253_402_300_800_000])
async def test_a_dead_letter_of_any_time_is_shown(platform: Opener, pool: asyncpg.Pool[Any], milliseconds: int) -> None:
    await bury(pool, 1)
    await pool.execute('update headrace.dead_letter set "timestamp" = $1', milliseconds)
    shop = await platform(pool=pool)
    async with shop.client() as client:
        listed = await client.get("/dead-letters")
        read = await client.get(f"/dead-letters/{letter_id(1)}")
    assert (listed.status_code, read.status_code) == (200, 200)
    (letter,) = listed.json()["dead_letters"]
    assert letter["timestamp_milliseconds"] == milliseconds
    assert (letter["timestamp"] is None) == (not -62_135_596_800_000 <= milliseconds < 253_402_300_800_000)


async def test_a_reason_that_this_release_does_not_know_is_shown(platform: Opener, pool: asyncpg.Pool[Any]) -> None:
    await bury(pool, 1, reason="emit_refused")
    shop = await platform(pool=pool)
    async with shop.client() as client:
        assert await numbers(client, reason="emit_refused") == [1]
        assert (await client.post(f"/dead-letters/{letter_id(1)}/discard")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/state/wallets/wallet/ada"),
        ("GET", "/subscriptions"),
        ("POST", "/subscriptions/wallets/pause"),
        ("GET", "/subscriptions/wallets/lanes"),
        ("POST", "/subscriptions/wallets/lanes/retry"),
        ("GET", "/dead-letters"),
        ("POST", f"/dead-letters/{NOBODY}/replay"),
    ],
)
@pytest.mark.parametrize("state", ["never connected", "closed"])
async def test_a_database_that_is_away_is_503(
    platform: Opener, pool: asyncpg.Pool[Any], method: str, path: str, state: str
) -> None:
    shop = await platform(pool=pool if state == "closed" else None)
    pool.terminate()
    async with shop.client() as client:
        answer = await client.request(method, path)
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/unavailable")
    assert answer.headers["retry-after"]
