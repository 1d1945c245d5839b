"""aiokafka and SQLAlchemy with one upsert for each event: what `headrace_sql` does through `Transaction`, by hand."""

from __future__ import annotations

import asyncio
import os

from aiokafka import AIOKafkaConsumer
from sqlalchemy.dialects.postgresql import insert

from bench.peers.faststream_events import WalletEvent, members
from bench.peers.sqlalchemy_orm import Wallet, engine


async def apply(event: WalletEvent) -> None:
    """Apply one event in a transaction of its own."""
    is_credit = event.type == "wallet.credited"
    row = insert(Wallet).values(
        customer=event.customer, balance=event.credit, credits=int(is_credit), debits=int(not is_credit), applied=1
    )
    added = {name: getattr(Wallet, name) + row.excluded[name] for name in ("balance", "credits", "debits", "applied")}
    async with engine.begin() as connection:
        await connection.execute(row.on_conflict_do_update(index_elements=[Wallet.customer], set_=added))


async def main() -> None:
    """Consume until the process is ended."""
    consumer = AIOKafkaConsumer(
        os.environ["TOPIC"],
        bootstrap_servers=os.environ["KAFKA"],
        group_id=os.environ["GROUP"],
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        async for message in consumer:
            headers = {name: value.decode() for name, value in message.headers}
            await apply(WalletEvent.model_validate(members(message.value, headers)))
            await consumer.commit()
    finally:
        await consumer.stop()


if __name__ == "__main__":
    asyncio.run(main())
