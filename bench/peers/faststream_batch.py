"""FastStream's batch subscriber with one hand-written transaction for each batch: an inbox, a fold, an upsert."""

from __future__ import annotations

import os
from collections import defaultdict
from typing import Annotated

import asyncpg
import uvloop
from faststream import AckPolicy, Context, FastStream
from faststream.kafka import KafkaBroker

from bench.peers.bare_loop import BATCH_RECORDS, UPSERT, columns
from bench.peers.faststream_events import WalletEvent, decode_batch
from bench.peers.faststream_pool import pool_of

REMEMBER = "insert into inbox (event_id) select unnest($1::text[]) on conflict do nothing returning event_id"


broker = KafkaBroker(os.environ["KAFKA"], logger=None)
app = FastStream(broker, lifespan=pool_of(1, 2))


@broker.subscriber(
    os.environ["TOPIC"],
    group_id=os.environ["GROUP"],
    auto_offset_reset="earliest",
    ack_policy=AckPolicy.NACK_ON_ERROR,
    batch=True,
    max_records=BATCH_RECORDS,
    decoder=decode_batch,
)
async def apply(events: list[WalletEvent], pool: Annotated[asyncpg.Pool, Context()]) -> None:
    """Apply a batch: all of it, or nothing."""
    async with pool.acquire() as connection, connection.transaction():
        ids = sorted({event.id for event in events})
        fresh = {row["event_id"] for row in await connection.fetch(REMEMBER, ids)}
        wallets: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
        for event in events:
            if event.id in fresh:
                fresh.discard(event.id)
                wallet = wallets[event.customer]
                wallet[0] += event.credit
                wallet[1 if event.type == "wallet.credited" else 2] += 1
        if wallets:
            await connection.execute(UPSERT, *columns(wallets))


if __name__ == "__main__":
    uvloop.run(app.run())
