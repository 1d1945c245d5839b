"""Decided dead letters expire after some days; what nobody has decided, or taken up, stays."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from headrace import sql
from headrace.dead_letters import decisions
from headrace.dead_letters.decisions import expire
from headrace.dead_letters.search import Filter, find, groups

BURY = """
insert into headrace.dead_letter (subscription, topic, partition, "offset", "timestamp", headers, reason, error,
                                  created_at, decision, decided_at, settled_at)
values ('shop.wallets', 'wallets', 0, $1, 0, '\\x90', 'decode', 'x', now() - interval '99 days', $2,
        now() - $3 * interval '1 day', case when $4 then now() end)
"""
FILL = """
update headrace.dead_letter
set value = 'a', record_key = 'b', key = 'c', handler = 'd', error_type = 'e', history = '[{"by": "ann"}]',
    edited_value = case when "offset" <> 2 then 'edit'::bytea end
"""


async def left(pool: asyncpg.Pool[Any]) -> set[int]:
    """The offsets of the letters that have not expired."""
    rows = await pool.fetch("""select "offset" from headrace.dead_letter where reason <> 'expired'""")
    return {row["offset"] for row in rows}


async def decisions_kept(pool: asyncpg.Pool[Any]) -> dict[int, str]:
    """The decisions that are kept of expired letters, by offset."""
    rows = await pool.fetch("""select "offset", decision from headrace.dead_letter where reason = 'expired'""")
    return {row["offset"]: row["decision"] for row in rows}


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


async def test_decisions_that_the_log_is_read_by_stay(pool: asyncpg.Pool[Any]) -> None:
    for number, decision in ((-1, "discard"), (1, "discard"), (2, "replay"), (3, "replay"), (4, "rewind")):
        await pool.execute(BURY, number, decision, 31, True)
    await pool.execute(FILL)
    async with pool.acquire() as connection:
        assert await expire(connection, 30) == 5
        assert await expire(connection, 30) == 0, "once"
        assert await decisions_kept(pool) == {1: "discard", 3: "replay"}
        rows = await pool.fetch('select * from headrace.dead_letter order by "offset"')
        assert [row["edited_value"] for row in rows] == [None, b"edit"], "what the log is read by"
        emptied = ("value", "record_key", "key", "handler", "error_type")
        assert {row[name] for row in rows for name in emptied} == {None}
        assert {row["history"] for row in rows} == {"[]"}
        assert await find(connection, Filter(), None, 10) == []
        assert await groups(connection, Filter(), 10) == []
        shown = await find(connection, Filter(reason="expired"), None, 10)
        assert {row["offset"] for row in shown} == {1, 3}, "whoever asks for them sees them"


async def test_expired_letter_that_a_rewind_undoes_leaves(pool: asyncpg.Pool[Any]) -> None:
    await pool.execute(BURY, 1, "replay", 31, True)
    await pool.execute("update headrace.dead_letter set edited_value = 'edit'")
    async with pool.acquire() as connection:
        assert await expire(connection, 30) == 1
        await connection.execute(sql.dead_letter.REWIND, "shop.wallets", "wallets", 0, 0, "ann", "a bug")
        assert await expire(connection, 30) == 0, "the rewind is today's"
        await connection.execute("update headrace.dead_letter set decided_at = now() - interval '31 days'")
        assert await expire(connection, 30) == 1
    assert await pool.fetchval("select count(*) from headrace.dead_letter") == 0


async def test_many_expire_in_steps(pool: asyncpg.Pool[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "EXPIRED_AT_ONCE", 2)
    for number in range(5):
        await pool.execute(BURY, number, "discard", 99, False)
    async with pool.acquire() as connection:
        assert await expire(connection, 1) == 5
    assert await left(pool) == set()
