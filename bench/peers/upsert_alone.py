"""Upserting alone: the upserts of the bare loop, folded before the clock starts. Prints what it measured."""

from __future__ import annotations

import json
import os
import random
import time
from collections import defaultdict
from typing import Any

import asyncpg
import uvloop

from bench.peers.bare_loop import BATCH_RECORDS, UPSERT, columns


async def main() -> None:
    """Write `EVENTS` events for `CUSTOMERS` keys in `PARTITIONS` partitions."""
    events, customers = int(os.environ["EVENTS"]), int(os.environ["CUSTOMERS"])
    batches = fold(events, customers, int(os.environ["PARTITIONS"]))
    database = await asyncpg.connect(os.environ["DATABASE"])
    started, cpu = time.perf_counter(), time.process_time()
    for batch in batches:
        await database.execute(UPSERT, *batch)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    print(json.dumps({"events": events, "seconds": seconds, "cpu_seconds": cpu}))


def fold(events: int, customers: int, partitions: int) -> list[tuple[list[Any], ...]]:
    """Return the columns of each batch; a batch is of one partition, as those that `getmany` returns mostly are."""
    randomness = random.Random(1)
    batches = []
    for number, begin in enumerate(range(0, events, BATCH_RECORDS)):
        wallets: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
        for _ in range(min(BATCH_RECORDS, events - begin)):
            key = randomness.randrange(number % partitions, customers, partitions)
            wallet = wallets[f"customer-{key}"]
            wallet[0] += 1
            wallet[1] += 1
        batches.append(columns(wallets))
    return batches


if __name__ == "__main__":
    uvloop.run(main())
