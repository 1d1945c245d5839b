"""Dead letters over HTTP: found by what failed, counted by error, decided in numbers, and who did it why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest

from tests.integration.http.conftest import Opener

BURY = """
insert into headrace.dead_letter (id, subscription, topic, partition, "offset", "timestamp", key, record_key, value,
                                  headers, source, event_id, type, reason, error, error_type, handler, created_at)
values ($1, $2, 'wallets', $3, $4, 1000, $5, $5, $6, $7, '/tests', $4::bigint::text, $8, $9, 'no ink', $10, $11,
        now() - $12 * interval '1 hour')
"""
NOBODY = "00000000-0000-0000-0000-000000000000"


async def bury(pool: asyncpg.Pool[Any], number: int, **facts: Any) -> None:
    """Write a dead letter; facts that are not given are those of a failed credit of ada's."""
    known: dict[str, Any] = {
        "subscription": "shop.wallets",
        "partition": 0,
        "key": "ada",
        "data": {"customer": "ada", "amount": 5},
        "type": "wallet.credited",
        "reason": "gave_up",
        "error_type": "KeyError",
        "handler": "credit",
        "hours": 0,
    } | facts
    headers = {"ce_specversion": "1.0", "ce_id": str(number), "ce_source": "/tests", "ce_type": known["type"]}
    await pool.execute(
        BURY,
        UUID(int=number),
        known["subscription"],
        known["partition"],
        number,
        known["key"].encode(),
        json.dumps(known["data"]).encode(),
        msgspec.msgpack.encode([(name, value.encode()) for name, value in headers.items()]),
        known["type"],
        known["reason"],
        known["error_type"],
        known["handler"],
        float(known["hours"]),
    )


async def decisions(pool: asyncpg.Pool[Any]) -> dict[int, str | None]:
    rows = await pool.fetch("select id, decision from headrace.dead_letter")
    return {row["id"].int: row["decision"] for row in rows}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"type": "wallet.debited"}, {2}),
        ({"key": "bob"}, {3}),
        ({"key": "b\x00b"}, set()),
        ({"reason": "decode"}, {4}),
        ({"error_type": "ValueError"}, {5}),
        ({"handler": "debit"}, {6}),
        ({"since": "2h"}, {1, 2, 3, 4, 5, 6}),
        ({"until": "2h"}, {7}),
        ({"type": "wallet.credited", "key": "ada", "handler": "credit", "reason": "gave_up", "since": "2h"}, {1, 5}),
    ],
    ids=str,
)
async def test_each_filter_finds_its_letters(
    platform: Opener, pool: asyncpg.Pool[Any], wanted: dict[str, str], expected: set[int]
) -> None:
    """A list, the counts and a decision about many mean the same letters."""
    await bury(pool, 1)
    await bury(pool, 2, type="wallet.debited")
    await bury(pool, 3, key="bob")
    await bury(pool, 4, reason="decode")
    await bury(pool, 5, error_type="ValueError")
    await bury(pool, 6, handler="debit")
    await bury(pool, 7, hours=5)
    moment = await pool.fetchval("select now() - interval '2 hours'")
    query = {name: moment.isoformat() if value == "2h" else value for name, value in wanted.items()}
    shop = await platform(pool=pool)
    async with shop.client() as client:
        listed = (await client.get("/dead-letters", params=query)).json()["dead_letters"]
        counted = (await client.get("/dead-letters/groups", params=query)).json()
        decided = await client.post("/dead-letters/replay", json={"where": query})
    assert {UUID(letter["id"]).int for letter in listed} == expected
    assert counted["total"] == len(expected)
    assert decided.json() == {"decision": "replay", "decided": len(expected), "next": None}
    assert {number for number, decision in (await decisions(pool)).items() if decision} == expected


async def test_letters_are_counted_by_what_failed_and_how(platform: Opener, pool: asyncpg.Pool[Any]) -> None:
    for number in range(1, 4):
        await bury(pool, number, hours=number)
    await bury(pool, 4, error_type="ValueError")
    await bury(pool, 5, subscription="bank.wallets")
    shop = await platform(pool=pool)
    async with shop.client() as client:
        answer = (await client.get("/dead-letters/groups")).json()
        first = (await client.get("/dead-letters/groups", params={"limit": 1})).json()
    assert answer["total"] == first["total"] == 4
    assert [(group["error_type"], group["letters"]) for group in answer["groups"]] == [
        ("KeyError", 3),
        ("ValueError", 1),
    ]
    (largest,) = first["groups"]
    assert largest.pop("first_at") < largest.pop("last_at")
    assert largest == {
        "subscription": "wallets",
        "reason": "gave_up",
        "type": "wallet.credited",
        "handler": "credit",
        "error_type": "KeyError",
        "letters": 3,
        "error": "no ink",
    }


async def test_many_letters_are_decided_step_by_step(platform: Opener, pool: asyncpg.Pool[Any]) -> None:
    """A letter that comes in, or is open again, after the first step is not met by the later ones."""
    for number in range(1, 8):
        await bury(pool, number, partition=number % 2)
    shop = await platform(pool=pool)
    cursor: str | None = None
    order: list[int] = []
    async with shop.client() as client:
        while True:
            body = {"where": {"subscription": "wallets"}, "limit": 2, "cursor": cursor}
            answer = (await client.post("/dead-letters/replay", json=body)).json()
            done = [number for number, decision in sorted((await decisions(pool)).items()) if decision == "replay"]
            order += [number for number in done if number not in order]
            await pool.execute("update headrace.dead_letter set decision = null where id = $1", UUID(int=2))
            if cursor is None:
                await bury(pool, 9, partition=1)
            cursor = answer["next"]
            if cursor is None:
                break
    assert order == [2, 4, 1, 6, 3, 5, 7]
    assert {number for number, decision in (await decisions(pool)).items() if decision is None} == {2, 9}
    assert shop.sample("dead_letters_decided_total", subscription="wallets", decision="replayed") == 7


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"where": {"typ": "wallet.credited"}},
        {"where": {}, "limit": 0},
        {"where": {}, "limit": 1_001},
        {"where": {}, "cursor": "%%%"},
        {"where": {}, "cursor": "W10="},
        {"where": {}, "why": 7},
        {"where": {}, "while": "true"},
        [],
    ],
    ids=str,
)
async def test_wrong_decision_about_many_decides_nothing(
    platform: Opener, pool: asyncpg.Pool[Any], body: object
) -> None:
    """A misspelt filter would otherwise mean all."""
    await bury(pool, 1)
    shop = await platform(pool=pool)
    async with shop.client() as client:
        answer = await client.post("/dead-letters/discard", json=body)
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/parameters"), answer.text
    assert await decisions(pool) == {1: None}


async def test_letter_tells_who_did_what_and_why(platform: Opener, pool: asyncpg.Pool[Any], tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps([{"name": "grace", "key": "oar", "scopes": ["read", "operate"]}]))
    for number in (1, 2):
        await bury(pool, number)
    shop = await platform(pool=pool, keys=keys)
    async with shop.client(headers={"X-API-Key": "oar"}) as client:
        edit = {"data": {"customer": "ada", "amount": 6}, "why": "six were meant\x00"}
        assert (await client.post(f"/dead-letters/{UUID(int=1)}/edit", json=edit)).status_code == 200
        assert (await client.post(f"/dead-letters/{UUID(int=1)}/replay", json={"why": "mended"})).status_code == 200
        assert (await client.post("/dead-letters/discard", json={"where": {}, "why": "all done"})).status_code == 200
        one, two = [(await client.get(f"/dead-letters/{UUID(int=number)}")).json() for number in (1, 2)]
        again = await client.post(f"/dead-letters/{UUID(int=1)}/discard")
    assert [(done["did"], done["by"], done["why"]) for done in one["history"]] == [
        ("edit", "grace", "six were meant\N{REPLACEMENT CHARACTER}"),
        ("replay", "grace", "mended"),
    ]
    assert [(done["did"], done["by"], done["why"]) for done in two["history"]] == [("discard", "grace", "all done")]
    assert one["decided_by"] == two["decided_by"] == "grace"
    assert (again.status_code, again.json()["detail"].endswith(" by grace.")) == (409, True)


async def test_edit_keeps_the_record_and_stands_beside_it(platform: Opener, pool: asyncpg.Pool[Any]) -> None:
    await bury(pool, 1)
    shop = await platform(pool=pool)
    letter = f"/dead-letters/{UUID(int=1)}"
    async with shop.client() as client:
        for amount in (6, 7):
            body = {"data": {"customer": "ada", "amount": amount}}
            assert (await client.post(f"{letter}/edit", json=body)).json() == {"id": str(UUID(int=1)), "edited": True}
        shown = (await client.get(letter)).json()
        assert shown["edited"] and json.loads(shown["edited_value"]) == {"customer": "ada", "amount": 7}
        assert json.loads(shown["value"]) == {"customer": "ada", "amount": 5}
        assert (await client.post(f"{letter}/discard")).status_code == 200
        assert (await client.post(f"{letter}/edit", json=body)).status_code == 409
        assert (await client.post(f"/dead-letters/{NOBODY}/edit", json=body)).status_code == 404


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"data": {"customer": "ada", "amount": -1}}, "amount"),
        ({"data": {"customer": "bob", "amount": 1}}, "key from 'ada' to 'bob'"),
        ({"data": {"customer": "ada", "amount": 1}, "value": "{}"}, "give one of"),
        ({"value": "{"}, "JSON"),
        ({"why": "x"}, "give one of"),
    ],
    ids=str,
)
async def test_edit_that_makes_another_event_is_refused(
    platform: Opener, pool: asyncpg.Pool[Any], body: dict[str, object], told: str
) -> None:
    await bury(pool, 1)
    shop = await platform(pool=pool)
    async with shop.client() as client:
        answer = await client.post(f"/dead-letters/{UUID(int=1)}/edit", json=body)
        assert (answer.status_code, answer.json()["type"]) == (422, "/problems/edit")
        assert told in answer.json()["detail"]
        assert not (await client.get(f"/dead-letters/{UUID(int=1)}")).json()["edited"]


async def test_edit_of_a_structured_event_keeps_its_attributes(platform: Opener, pool: asyncpg.Pool[Any]) -> None:
    await bury(pool, 1)
    attributes = {"specversion": "1.0", "id": "1", "source": "/tests", "type": "wallet.credited"}
    event = attributes | {"data": {"customer": "ada"}}
    headers = msgspec.msgpack.encode([("content-type", b"application/cloudevents+json; charset=UTF-8")])
    await pool.execute("update headrace.dead_letter set value = $1, headers = $2", json.dumps(event).encode(), headers)
    shop = await platform(pool=pool)
    letter = f"/dead-letters/{UUID(int=1)}"
    async with shop.client() as client:
        data = {"customer": "ada", "amount": 6}
        assert (await client.post(f"{letter}/edit", json={"data": data})).status_code == 200
        assert json.loads((await client.get(letter)).json()["edited_value"]) == event | {"data": data}
        other = json.dumps(event | {"id": "2", "data": data})
        refused = await client.post(f"{letter}/edit", json={"value": other})
        assert "keep source, type and id" in refused.json()["detail"]


async def test_stranger_sends_no_body_that_is_read(platform: Opener, pool: asyncpg.Pool[Any], tmp_path: Path) -> None:
    """The caller is judged first, so that nobody without a key can fill the memory."""
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps([{"name": "grace", "key": "oar", "scopes": ["read", "operate"]}]))
    shop = await platform(pool=pool, keys=keys, max_body_bytes=1_024)
    large = b'{"where": {}, "why": "' + b"x" * 2_000 + b'"}'
    async with shop.client() as client:
        assert (await client.post("/dead-letters/replay", content=large)).status_code == 401
        operator = {"X-API-Key": "oar"}
        assert (await client.post("/dead-letters/replay", content=large, headers=operator)).status_code == 413


async def test_bodies_are_documented(platform: Opener) -> None:
    shop = await platform()
    async with shop.client() as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
    many = paths["/dead-letters/{decision}"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert many["required"] == ["where"]
    assert "error_type" in many["properties"]["where"]["properties"]


async def test_time_of_a_filter_is_read_as_utc(platform: Opener, pool: asyncpg.Pool[Any]) -> None:
    """A time without a zone is in UTC; one that no calendar has is refused."""
    await bury(pool, 1)
    shop = await platform(pool=pool)
    now = await pool.fetchval("select (now() at time zone 'UTC') - interval '1 minute'")
    async with shop.client() as client:
        found = await client.get("/dead-letters", params={"since": now.isoformat()})
        assert len(found.json()["dead_letters"]) == 1
        for wrong in ("yesterday", "0001-01-01T00:00:00+23:59"):
            answer = await client.get("/dead-letters", params={"since": wrong})
            assert answer.status_code == 422, wrong
