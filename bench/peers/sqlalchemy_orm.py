"""aiokafka and SQLAlchemy as tutorials have it: read the row, change the object, commit, and then commit the offset.

At least once: what was committed in Postgres but not in Kafka when the process dies is applied again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

from aiokafka import AIOKafkaConsumer
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from bench.peers.faststream_events import WalletEvent, members


class Base(DeclarativeBase):
    """The tables."""


class Wallet(Base):
    """One customer's wallet."""

    __tablename__ = "wallet"

    customer: Mapped[str] = mapped_column(primary_key=True)
    balance: Mapped[int] = mapped_column(default=0)
    credits: Mapped[int] = mapped_column(default=0)
    debits: Mapped[int] = mapped_column(default=0)
    applied: Mapped[int] = mapped_column(default=0)


engine = create_async_engine(os.environ["DATABASE"].replace("postgresql://", "postgresql+asyncpg://"))
new_session = async_sessionmaker(engine, expire_on_commit=False)


async def apply(event: WalletEvent) -> None:
    """Apply one event in a transaction of its own."""
    async with new_session() as session, session.begin():
        wallet = await session.get(Wallet, event.customer)
        if wallet is None:
            wallet = Wallet(customer=event.customer, balance=0, credits=0, debits=0, applied=0)
            session.add(wallet)
        wallet.balance += event.credit
        if event.type == "wallet.credited":
            wallet.credits += 1
        else:
            wallet.debits += 1
        wallet.applied += 1


async def consume(apply: Callable[[WalletEvent], Awaitable[None]]) -> None:
    """Apply each event, then commit its offset, until the process is ended."""
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
    asyncio.run(consume(apply))
