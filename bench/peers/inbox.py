"""An event's effect with its id in an inbox, in one transaction: what a team writes by hand to apply events once."""

from __future__ import annotations

import asyncpg

from bench.peers.faststream_events import WalletEvent

REMEMBER = "insert into inbox (event_id) values ($1) on conflict do nothing returning event_id"
UPSERT = """
insert into wallet as kept (customer, balance, credits, debits, applied) values ($1, $2, $3, $4, 1)
on conflict (customer) do update
set balance = kept.balance + excluded.balance, credits = kept.credits + excluded.credits,
    debits = kept.debits + excluded.debits, applied = kept.applied + 1
"""


async def apply_once(pool: asyncpg.Pool, event: WalletEvent) -> None:
    """Apply the event unless its id is in the inbox."""
    async with pool.acquire() as connection, connection.transaction():
        if await connection.fetchval(REMEMBER, event.id) is not None:
            is_credit = event.type == "wallet.credited"
            await connection.execute(UPSERT, event.customer, event.credit, int(is_credit), int(not is_credit))
