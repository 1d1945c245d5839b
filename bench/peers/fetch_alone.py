"""Fetching alone: `getmany` until the topic is read, and nothing done with the records. Prints what it measured."""

from __future__ import annotations

import json
import os
import time

import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition

from bench.peers.bare_loop import BATCH_RECORDS


async def main() -> None:
    """Read `EVENTS` records once."""
    events = int(os.environ["EVENTS"])
    consumer = AIOKafkaConsumer(bootstrap_servers=os.environ["KAFKA"], enable_auto_commit=False)
    await consumer.start()
    partitions = [TopicPartition(os.environ["TOPIC"], number) for number in range(int(os.environ["PARTITIONS"]))]
    consumer.assign(partitions)
    await consumer.seek_to_beginning(*partitions)
    read, started, cpu = 0, time.perf_counter(), time.process_time()
    while read < events:
        fetched = await consumer.getmany(timeout_ms=1_000, max_records=BATCH_RECORDS)
        read += sum(len(records) for records in fetched.values())
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    print(json.dumps({"events": read, "seconds": seconds, "cpu_seconds": cpu}))
    await consumer.stop()


if __name__ == "__main__":
    uvloop.run(main())
