"""Publishes to Kafka: idempotent, on `acks=all`, in whole batches, each partition for itself.

```
publish() ──records──▶ send queue of the partition: open batch ──one at a time──▶ leader ──requests──▶ broker
                                      ▲                                              │ refuses, or does not answer
                                      └──── fails with it: what waits behind it ◀────┘
```
Requests are built here instead of by aiokafka's producer. That one has a single sequence of failures for all
partitions: if a batch of one is in doubt, the producer and everything in it has to be thrown away.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from itertools import chain, count, starmap

from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from headrace.errors import HeadraceError, RecordTooLargeError, TransportError
from headrace.log.kafka_client import KafkaClient
from headrace.log.kafka_connection import Options, log_in, translate
from headrace.log.kafka_control import KafkaControl
from headrace.log.kafka_leader import Leader
from headrace.log.kafka_send_queue import Batch, Placed, ProducerId, SendQueue
from headrace.log.partitioner import partition_for
from headrace.log.ports import NewRecord, Position, TopicPartition
from headrace.log.refusals import no_such_topic
from headrace.settings import KafkaSettings

STOP_SECONDS = 5.0
HEADER_OVERHEAD_BYTES = 64
NO_TRANSACTION_MILLISECONDS = 2**31 - 1


class KafkaPublisher:
    """The producer of this process: a send queue per partition over connections that all of them share."""

    def __init__(self, control: KafkaControl, options: Options, settings: KafkaSettings) -> None:
        self._control = control
        self._options = options
        self._settings = settings
        self._brokers = ",".join(options["bootstrap_servers"])
        self._queues: dict[str, list[SendQueue]] = {}
        self._spread = count()
        self._client: KafkaClient | None = None
        self._leaders: dict[int, Leader] = {}
        self._leaders_of: KafkaClient | None = None
        self._connecting: asyncio.Task[KafkaClient] | None = None

    async def start(self) -> None:
        """Connect. Raises: TransportError, ConfigurationError."""
        await self.connected()

    async def stop(self) -> None:
        """Send what is open, disconnect. Never raises."""
        sending = [queue.task for queues in self._queues.values() for queue in queues if queue.task is not None]
        if sending:
            _, late = await asyncio.wait(sending, timeout=STOP_SECONDS)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=STOP_SECONDS)
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait({self._connecting}, timeout=STOP_SECONDS)
        if self._client is not None:
            await self.drop(self._client)

    async def publish(self, records: Sequence[NewRecord]) -> list[Position]:
        """Return the positions of the records once all in-sync replicas have them; see the port."""
        client = await self.connected()
        queues: dict[str, list[SendQueue]] = {}
        for topic in {record.topic for record in records}:
            queues[topic] = self._queues_of(topic, await self._partitions(client, topic))
        self._check_sizes(records)
        chosen = [self._chosen(record.key, queues[record.topic]) for record in records]
        placed = _placed(records, chosen)
        for parts in placed.values():
            for batch, _ in parts:
                await batch.ended()
        positions = {queue: chain.from_iterable(starmap(Batch.positions, parts)) for queue, parts in placed.items()}
        try:
            return [next(positions[queue]) for queue in chosen]
        except RecordTooLargeError as error:
            if len(records) == 1:
                raise
            raise RecordTooLargeError(
                f"{error} The other {len(records) - 1:,} events of the call may be in the log: publish them again "
                "without this one, under the same ids."
            ) from error

    async def connected(self) -> KafkaClient:
        """Return the client, a new one if there is none. Raises: TransportError, ConfigurationError."""
        if self._client is not None:
            return self._client
        if self._connecting is None:  # one attempt for all that wait, whoever of them is cancelled
            self._connecting = asyncio.get_running_loop().create_task(self._connect())
            self._connecting.add_done_callback(self._on_connected)
        attempt = self._connecting
        await asyncio.wait({attempt})
        if attempt.cancelled():
            raise TransportError("the Kafka log was stopped before it was connected.")
        return attempt.result()

    async def drop(self, client: KafkaClient) -> None:
        """Disconnect the client, so that the next attempt begins at HEADRACE_LOG. Never raises."""
        if self._client is client:
            self._client = None
            with contextlib.suppress(Exception):
                await client.close()

    def leader(self, client: KafkaClient, node: int) -> Leader:
        """Return what sends batches to the broker."""
        if self._leaders_of is not client:
            self._leaders_of, self._leaders = client, {}
        if node not in self._leaders:
            self._leaders[node] = Leader(client, node, self._settings.request_timeout_seconds)
        return self._leaders[node]

    async def refresh(self, client: KafkaClient) -> None:
        """Ask who leads which partition; drop the client if no broker that it knows answers. Never raises."""
        if self._client is client and not await client.force_metadata_update():
            await self.drop(client)

    async def producer_id(self, client: KafkaClient) -> ProducerId:
        """Return an id by which brokers recognise a batch that is sent again. Raises: KafkaError."""
        request = InitProducerIdRequest(None, NO_TRANSACTION_MILLISECONDS)
        response = await client.send(client.get_random_node(), request)
        if response.error_code:
            raise for_code(response.error_code)()
        return response.producer_id, response.producer_epoch

    async def check_exists(self, topic: str) -> None:
        """Raises: LogMismatchError if the topic does not exist, TransportError."""
        if topic not in await self._control.topics([topic]):
            raise no_such_topic(topic)

    def explain(self, error: BaseException) -> HeadraceError:
        """Return the error of a batch in our words."""
        return error if isinstance(error, HeadraceError) else translate(error, self._brokers, self._options)

    def _on_connected(self, attempt: asyncio.Task[KafkaClient]) -> None:
        self._connecting = None
        if not attempt.cancelled() and attempt.exception() is None:
            self._client = attempt.result()

    async def _connect(self) -> KafkaClient:
        client = KafkaClient(**self._options)
        try:
            async with asyncio.timeout(self._settings.request_timeout_seconds):
                await log_in(self._options)
                await client.bootstrap()
        except BaseException as error:
            with contextlib.suppress(Exception):
                await client.close()
            if isinstance(error, (KafkaError, OSError, TimeoutError)):
                raise translate(error, self._brokers, self._options) from error
            raise
        return client

    async def _partitions(self, client: KafkaClient, topic: str) -> int:
        known = client.cluster.partitions_for_topic(topic)
        if known is None:
            await self.check_exists(topic)
            try:
                async with asyncio.timeout(self._settings.request_timeout_seconds):
                    known = await client._wait_on_metadata(topic)
            except (KafkaError, TimeoutError) as error:
                raise self.explain(error) from error
        return len(known)

    def _check_sizes(self, records: Sequence[NewRecord]) -> None:
        """Refuse what is larger than the setting before anything of the call is sent."""
        most = self._settings.max_record_bytes
        if _rough_bytes(records) < most // 2:
            return
        for record in records:
            if _rough_bytes([record]) < most // 2:
                continue
            size = DefaultRecordBatchBuilder.estimate_size_in_bytes(record.key, record.value, record.headers)
            if size > most:
                raise RecordTooLargeError(
                    f"an event for {record.topic} has {size} bytes, more than HEADRACE_KAFKA_MAX_RECORD_BYTES={most}."
                )

    def _queues_of(self, topic: str, partitions: int) -> list[SendQueue]:
        """Return the topic's queues by the numbers of their partitions."""
        queues = self._queues.setdefault(topic, [])
        for number in range(len(queues), partitions):
            queues.append(SendQueue(self, TopicPartition(topic, number), self._settings))
        return queues if len(queues) == partitions else queues[:partitions]

    def _chosen(self, key: bytes | None, queues: Sequence[SendQueue]) -> SendQueue:
        number = next(self._spread) % len(queues) if key is None else partition_for(key, len(queues))
        return queues[number]


def _placed(records: Sequence[NewRecord], chosen: Sequence[SendQueue]) -> dict[SendQueue, list[Placed]]:
    """Put each record into its queue, those of one queue together; return where they are."""
    together: dict[SendQueue, list[NewRecord]] = {}
    for queue, record in zip(chosen, records, strict=True):
        if queue in together:
            together[queue].append(record)
        else:
            together[queue] = [record]
    return {queue: queue.append(theirs) for queue, theirs in together.items()}


def _rough_bytes(records: Sequence[NewRecord]) -> int:
    """Return about how many bytes the records have together: quicker than to estimate each as Kafka writes it."""
    headers = [len(value) for record in records for _, value in record.headers]
    bodies = [len(record.key or b"") + len(record.value or b"") for record in records]
    return sum(bodies) + sum(headers) + HEADER_OVERHEAD_BYTES * len(headers)
