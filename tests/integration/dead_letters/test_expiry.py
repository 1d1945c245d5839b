"""Decided dead letters leave after some days; what nobody has decided, or taken up, stays."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from headrace.dead_letters import decisions
from headrace.dead_letters.decisions import expire

BURY = """
insert into headrace.dead_letter (subscription, topic, partition, "offset", "timestamp", headers, reason, error,
                                  created_at, decision, decided_at, settled_at)
values ('shop.wallets', 'wallets', 0, $1, 0, '\\x90', 'decode', 'x', now() - interval '99 days', $2,
        now() - $3 * interval '1 day', case when $4 then now() end)
"""


async def left(pool: asyncpg.Pool[Any]) -> set[int]:
    """The offsets that are still there."""
    return {row["offset"] for row in await pool.fetch('select "offset" from headrace.dead_letter')}


async def test_only_what_was_settled_long_ago_expires(pool: asyncpg.Pool[Any]) -> None:
    for number, decision, days, is_settled in (
        (1, None, None, False),
        (2, "discard", 31, False),
        (3, "discard", 29, False),
        (4, "replay", 31, True),
        (5, "replay", 31, False),
        (6, "replay", 29, True),
    ):
        await pool.execute(BURY, number, decision, days, is_settled)
    async with pool.acquire() as connection:
        assert await expire(connection, 30) == 2
        assert await expire(connection, 30) == 0
    assert await left(pool) == {1, 3, 5, 6}


async def test_many_expire_in_steps(pool: asyncpg.Pool[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "EXPIRED_AT_ONCE", 2)
    for number in range(5):
        await pool.execute(BURY, number, "discard", 99, False)
    async with pool.acquire() as connection:
        assert await expire(connection, 1) == 5
    assert await left(pool) == set()
