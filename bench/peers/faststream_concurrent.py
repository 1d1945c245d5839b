"""FastStream with an inbox and twenty workers: the events of one key in any order.

FastStream runs several workers on all partitions only if offsets are committed before the work (`ACK_FIRST`): what is
in progress when the process dies is lost.
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

WORKERS = 20


broker = KafkaBroker(os.environ["KAFKA"], logger=None)
app = FastStream(broker, lifespan=pool_of(WORKERS, WORKERS))


@broker.subscriber(
    os.environ["TOPIC"],
    group_id=os.environ["GROUP"],
    auto_offset_reset="earliest",
    ack_policy=AckPolicy.ACK_FIRST,
    max_workers=WORKERS,
    decoder=decode,
)
async def apply(event: WalletEvent, pool: Annotated[asyncpg.Pool, Context()]) -> None:
    """Apply one event."""
    await apply_once(pool, event)


if __name__ == "__main__":
    uvloop.run(app.run())
