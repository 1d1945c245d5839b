"""Prints the lag of a consumer group every second, as KEDA computes it: `python lag.py GROUP TOPIC STOP_FILE`.

For each partition: the log's end less the group's committed offset; a partition without one counts from the beginning.
"""

import asyncio
import os
import pathlib
import sys

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

INTERVAL_SECONDS = 1.0


async def main():
    """Print lag and number of partitions a line, until the file exists."""
    group, topic, stop = sys.argv[1:]
    brokers = os.environ["KAFKA"]
    admin, consumer = AIOKafkaAdminClient(bootstrap_servers=brokers), AIOKafkaConsumer(bootstrap_servers=brokers)
    await admin.start()
    await consumer.start()
    described = await admin.describe_topics([topic])
    partitions = [TopicPartition(topic, each["partition"]) for each in described[0]["partitions"]]
    while not pathlib.Path(stop).exists():
        committed = await admin.list_consumer_group_offsets(group)
        ends = await consumer.end_offsets(partitions)
        begins = await consumer.beginning_offsets(partitions)
        offsets = {p: committed[p].offset if p in committed else -1 for p in partitions}
        lag = sum(ends[p] - (offsets[p] if offsets[p] >= 0 else begins[p]) for p in partitions)
        sys.stdout.write(f"{lag} {len(partitions)}\n")
        sys.stdout.flush()
        await asyncio.sleep(INTERVAL_SECONDS)
    await consumer.stop()
    await admin.close()


asyncio.run(main())
