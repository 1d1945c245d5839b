"""Records as a foreign client sends them: librdkafka, to a partition of its own choice, or in a transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from confluent_kafka import Producer

from headrace.log.ports import NewRecord


async def produce(
    bootstrap: str, records: Iterable[NewRecord], *, partition: int = -1, compression: str = "none", at: int = 0
) -> None:
    """Send the records and wait for the acknowledgements; to one partition, or to those that murmur2 chooses.

    `at`: what the producer's clock says, in milliseconds; 0 means the time of now.
    """
    producer = Producer(
        {"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "compression.type": compression}
    )
    await asyncio.to_thread(_send, producer, list(records), partition, at)
    assert await asyncio.to_thread(producer.flush, 30) == 0


async def produce_in_transaction(
    bootstrap: str, records: Iterable[NewRecord], *, name: str, is_committed: bool
) -> None:
    """Send the records in a transaction, and commit or abort it."""
    await asyncio.to_thread(_run_transaction, bootstrap, list(records), name, is_committed)


def _run_transaction(bootstrap: str, records: list[NewRecord], name: str, is_committed: bool) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": name, "partitioner": "murmur2_random"})
    producer.init_transactions(30)
    producer.begin_transaction()
    _send(producer, records, -1)
    producer.flush(30)
    if is_committed:
        producer.commit_transaction(30)
    else:
        producer.abort_transaction(30)


def _send(producer: Producer, records: list[NewRecord], partition: int, at: int = 0) -> None:
    for record in records:
        producer.produce(
            record.topic, record.value, record.key, partition=partition, headers=list(record.headers), timestamp=at
        )
        producer.poll(0)
