"""aiokafka and SQLAlchemy with one upsert for each event: what `headrace_sql` does through `Transaction`, by hand."""

from __future__ import annotations

import asyncio

from sqlalchemy.dialects.postgresql import insert

from bench.peers.faststream_events import WalletEvent
from bench.peers.sqlalchemy_orm import Wallet, consume, engine


async def apply(event: WalletEvent) -> None:
    """Apply one event in a transaction of its own."""
    is_credit = event.type == "wallet.credited"
    row = insert(Wallet).values(
        customer=event.customer, balance=event.credit, credits=int(is_credit), debits=int(not is_credit), applied=1
    )
    added = {name: getattr(Wallet, name) + row.excluded[name] for name in ("balance", "credits", "debits", "applied")}
    async with engine.begin() as connection:
        await connection.execute(row.on_conflict_do_update(index_elements=[Wallet.customer], set_=added))


if __name__ == "__main__":
    asyncio.run(consume(apply))
