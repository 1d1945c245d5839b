"""FastStream with an inbox: one event at a time, its id, its effect and its offset committed before the next.

Exactly once in effect, in order: the commit of Postgres comes first, the offset follows, and the inbox drops repeats.
"""

from __future__ import annotations

import os
from typing import Annotated

import asyncpg
import uvloop
from faststream import AckPolicy, Context, FastStream
from faststream.kafka import KafkaBroker

from bench.peers.faststream_events import WalletEvent, decode
from bench.peers.faststream_pool import pool_of
from bench.peers.inbox import apply_once

broker = KafkaBroker(os.environ["KAFKA"], logger=None)
app = FastStream(broker, lifespan=pool_of(1, 2))


@broker.subscriber(
    os.environ["TOPIC"],
    group_id=os.environ["GROUP"],
    auto_offset_reset="earliest",
    ack_policy=AckPolicy.NACK_ON_ERROR,
    decoder=decode,
)
async def apply(event: WalletEvent, pool: Annotated[asyncpg.Pool, Context()]) -> None:
    """Apply one event."""
    await apply_once(pool, event)


if __name__ == "__main__":
    uvloop.run(app.run())
