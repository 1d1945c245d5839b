"""What moves into the outbox at a time is bounded by its bytes as well: large events fill no memory."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from headrace.outbox import moving
from headrace.outbox.moving import move_replays, move_timers

TIMERS = """
insert into headrace.timer (subscription, partition, type, key, name, due_at, topic, value, headers)
select 'shop.outbox', 0, 'placed', number::text::bytea, 'n', now() - interval '1 hour' + number * interval '1 second',
       'orders', decode(repeat('00', 100), 'hex'), '\\x90' from generate_series(1, 5) as number
"""
LETTERS = """
insert into headrace.dead_letter (subscription, partition, topic, "offset", "timestamp", record_key, value, headers,
                                  reason, error, decision, created_at)
select 'shop.outbox', 0, 'orders', -1, 0, number::text::bytea, decode(repeat('00', 100), 'hex'), '\\x90',
       'emit_refused', 'too large', 'replay', now() + number * interval '1 second' from generate_series(1, 5) as number
"""


@pytest.mark.parametrize("what", ["timers", "replays"])
async def test_large_events_move_into_the_outbox_in_parts(
    pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    moved = []
    async with pool.acquire() as borrowed:
        connection: Any = borrowed
        await connection.execute(TIMERS if what == "timers" else LETTERS)
        for most in (250, 1, 1_000):
            monkeypatch.setattr(moving, "MOST_BYTES", most)
            async with connection.transaction():
                if what == "timers":
                    await move_timers(connection, "shop", "shop.outbox", [0], may_wait=False)
                else:
                    await move_replays(connection, "shop", "shop.outbox")
            rows = await connection.fetch("delete from headrace.outbox returning key")
            moved.append(sorted(row["key"].decode() for row in rows))
    assert moved == [["1", "2"], ["3"], ["4", "5"]]
