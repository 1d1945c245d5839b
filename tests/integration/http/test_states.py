"""States over HTTP: counted, listed, written and deleted."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
import pytest

from tests.integration.http.conftest import Opener

INSERT = """
insert into headrace.state (subscription, state, key, partition, version, data, expires_at)
values ('shop.wallets', 'wallet', $1, 0, 1, $2, now() + $3::int * interval '1 hour')
"""
CLAIM = """
insert into headrace.claim (subscription, topic, partition, epoch, token, owner, claimed_offset, next_offset)
values ('shop.wallets', 'wallets', 0, 4, gen_random_uuid(), 'pod-1', 0, 0)
"""


async def test_states_are_counted_and_listed_page_by_page(platform: Opener, pool: asyncpg.Pool[Any]) -> None:
    for number, key in enumerate(("a", "b/c", "ü")):
        await pool.execute(INSERT, key, json.dumps({"balance": number}), None)
    await pool.execute(INSERT, "gone", "{}", -1)
    shop = await platform(pool=pool)
    async with shop.client() as client:
        counted = (await client.get("/state/wallets")).json()["states"]
        assert [(each["state"], each["keys"]) for each in counted] == [("wallet", 3)]
        first = (await client.get("/state/wallets/wallet", params={"limit": 2})).json()
        assert first["states"] == [
            {"key": "a", "version": 1, "data": {"balance": 0}},
            {"key": "b/c", "version": 1, "data": {"balance": 1}},
        ]
        second = (await client.get("/state/wallets/wallet", params={"limit": 2, "cursor": first["next"]})).json()
        assert ([each["key"] for each in second["states"]], second["next"]) == (["ü"], None)
        assert (await client.get("/state/wallets/purse")).status_code == 404
        assert (await client.get("/state/purses")).status_code == 404


async def test_operator_writes_and_deletes_a_state(platform: Opener, pool: asyncpg.Pool[Any]) -> None:
    shop = await platform(pool=pool)
    path = "/state/wallets/wallet/b%2Fc"
    async with shop.client() as client:
        early = await client.put(path, json={"balance": 5})
        assert (early.status_code, "has never run here" in early.json()["detail"]) == (409, True)
        await pool.execute(CLAIM)
        token = await pool.fetchval("select token from headrace.claim")
        written = await client.put(path, json={"balance": 5}, params={"why": "a wrong refund"})
        assert (written.status_code, written.json()) == (200, {"version": 1})
        assert (await client.get(path)).json() == {"balance": 5}
        assert await pool.fetchval("select token from headrace.claim") != token, "its owner claims again"
        assert (await client.delete(path)).status_code == 204
        assert (await client.delete(path)).status_code == 409
        assert (await client.get(path)).status_code == 404
    rows = await pool.fetch("select action, key, before, by, why from headrace.state_change order by id")
    assert [(row["action"], row["key"], row["before"], row["why"]) for row in rows] == [
        ("put", "b/c", None, "a wrong refund"),
        ("delete", "b/c", '{"balance": 5}', None),
    ]
    assert {row["by"] for row in rows} == {"anonymous"}


@pytest.mark.parametrize("body", [b'{"balance": "x"}', b"{", b'{"colour": 1}', b""])
async def test_body_that_is_no_state_is_refused(platform: Opener, pool: asyncpg.Pool[Any], body: bytes) -> None:
    await pool.execute(CLAIM)
    shop = await platform(pool=pool)
    async with shop.client() as client:
        answer = await client.put("/state/wallets/wallet/ada", content=body)
        assert (answer.status_code, answer.json()["type"]) == (422, "/problems/schema")
        assert "the body is no Wallet: " in answer.json()["detail"]
        assert (await client.put("/state/wallets/wallet/a%00b", json={})).status_code == 409
    assert await pool.fetchval("select count(*) from headrace.state") == 0
