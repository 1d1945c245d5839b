"""What the platform asks of the Kafka cluster apart from records: topics, their creation, offsets, one odd fetch."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    BrokerResponseError,
    ClusterAuthorizationFailedError,
    InvalidPartitionsError,
    InvalidReplicationFactorError,
    InvalidTopicError,
    KafkaError,
    LeaderNotAvailableError,
    PolicyViolationError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.admin import CreateTopicsRequest
from aiokafka.protocol.api import Response
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.offset import OffsetRequest

from headrace.errors import ConfigurationError
from headrace.log.kafka_connection import Options, log_in, translate
from headrace.log.ports import Bounds, TopicInfo, TopicPartition
from headrace.log.refusals import check_topic_name, no_such_partition, no_such_topic

T = TypeVar("T")

READ_UNCOMMITTED, READ_COMMITTED = 0, 1
EARLIEST, LATEST = -2, -1
RETRY_SECONDS = 0.1
REFUSALS = (
    ClusterAuthorizationFailedError,
    InvalidPartitionsError,
    InvalidReplicationFactorError,
    InvalidTopicError,
    PolicyViolationError,
)


class KafkaControl:
    """One connection for questions; every answer comes within the request timeout, or a TransportError does."""

    def __init__(self, options: Options, timeout_seconds: float, replication_factor: int) -> None:
        self._options = options
        self._timeout_seconds = timeout_seconds
        self._replication_factor = replication_factor
        self._brokers = ",".join(options["bootstrap_servers"])
        self._client: AIOKafkaClient | None = None
        self._connecting = asyncio.Lock()

    async def stop(self) -> None:
        """Disconnect. Never raises."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):
                await client.close()

    async def topics(self, names: Sequence[str]) -> dict[str, TopicInfo]:
        """Return what exists of the named topics; never creates one, whatever the brokers allow."""
        if not names:
            return {}

        async def ask(client: AIOKafkaClient) -> dict[str, TopicInfo]:
            response = await self._metadata(client, names)
            found = {}
            for code, topic, _, partitions in response.topics:
                error = for_code(code)
                if error in (UnknownTopicOrPartitionError, InvalidTopicError):
                    continue
                if code:
                    raise error(topic)
                found[topic] = TopicInfo(topic, len(partitions), f"kafka:{response.cluster_id}")
            return found

        return await self._answered(ask)

    async def create(self, topic: str, partitions: int) -> None:
        """Create the topic and wait until each of its partitions has a leader; nothing happens where it exists."""
        check_topic_name(topic, partitions)

        async def ask(client: AIOKafkaClient) -> None:
            request = CreateTopicsRequest(
                [(topic, partitions, self._replication_factor, [], [])], round(self._timeout_seconds * 1000), False
            )
            response = await client.send(client.get_random_node(), request)
            ((_, code, *message),) = response.topic_errors
            error = for_code(code)
            if error in REFUSALS:
                reason = message[0] if message and message[0] else error.message
                raise ConfigurationError(f"Kafka refused to create the topic {topic!r}: {str(reason).rstrip('.')}.")
            if code and error is not TopicAlreadyExistsError:
                raise error(topic)

        async def settled(client: AIOKafkaClient) -> None:
            await self._leaders(client, [topic])

        await self._answered(ask)
        await self._answered(settled, missing_is_late=True)

    async def bounds(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Bounds]:
        """Return begin and last stable offset of each. Raises: LogMismatchError (no such partition), TransportError."""
        if not partitions:
            return {}

        async def ask(client: AIOKafkaClient) -> dict[TopicPartition, Bounds]:
            leaders = await self._leaders(client, sorted({topic for topic, _ in partitions}))
            by_node: dict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
            for topic, partition in partitions:
                node = leaders.get(TopicPartition(topic, partition))
                if node is None:
                    raise no_such_partition(TopicPartition(topic, partition))
                by_node[node][topic].append(partition)
            begins: dict[TopicPartition, int] = {}
            ends: dict[TopicPartition, int] = {}
            highs: dict[TopicPartition, int] = {}
            await asyncio.gather(
                *(_offsets(client, node, asked, EARLIEST, READ_COMMITTED, begins) for node, asked in by_node.items()),
                *(_offsets(client, node, asked, LATEST, READ_COMMITTED, ends) for node, asked in by_node.items()),
                *(_offsets(client, node, asked, LATEST, READ_UNCOMMITTED, highs) for node, asked in by_node.items()),
            )
            return {partition: Bounds(begins[partition], ends[partition], highs[partition]) for partition in begins}

        return await self._answered(ask)

    async def fetch(self, partition: TopicPartition, offset: int, max_bytes: int) -> Any:
        """Return the partition's part of one raw fetch response, from the offset on, without waiting for more."""

        async def ask(client: AIOKafkaClient) -> Any:
            leaders = await self._leaders(client, [partition.topic])
            request = FetchRequest(
                0, 1, max_bytes, READ_COMMITTED, [(partition.topic, [(partition.partition, offset, max_bytes)])]
            )
            response = await client.send(leaders[partition], request)
            ((_, ((_, code, *part),)),) = response.topics
            if code:
                raise for_code(code)(partition.topic)
            return part

        return await self._answered(ask)

    async def _leaders(self, client: AIOKafkaClient, topics: Sequence[str]) -> dict[TopicPartition, int]:
        response = await self._metadata(client, topics)
        leaders = {}
        for code, topic, _, partitions in response.topics:
            if code:
                raise for_code(code)(topic)
            for _, partition, leader, *_ in partitions:
                if leader < 0:
                    raise LeaderNotAvailableError(topic)
                leaders[TopicPartition(topic, partition)] = leader
        return leaders

    async def _metadata(self, client: AIOKafkaClient, topics: Sequence[str]) -> Response:
        request = MetadataRequest(list(topics), allow_auto_topic_creation=False)
        response = await client.send(client.get_random_node(), request)
        client.cluster.update_metadata(response)  # else a broker that joined later is unknown to send()
        return response

    async def _answered(self, ask: Callable[[AIOKafkaClient], Awaitable[T]], *, missing_is_late: bool = False) -> T:
        """Ask until there is an answer: elections are waited for, a broken connection is made anew once."""
        last: Exception | None = None
        try:
            async with asyncio.timeout(self._timeout_seconds):
                while True:
                    client = await self._connected()
                    try:
                        return await ask(client)
                    except UnknownTopicOrPartitionError as error:
                        if not missing_is_late:
                            raise no_such_topic(error.args[0]) from error
                        last = error
                    except BrokerResponseError as error:
                        if not error.retriable:
                            raise translate(error, self._brokers, self._options) from error
                        last = error
                    except (KafkaError, OSError, TimeoutError) as error:
                        if last is not None:
                            raise translate(error, self._brokers, self._options) from error
                        last = error
                        await self.stop()
                    await asyncio.sleep(RETRY_SECONDS)
        except TimeoutError as error:
            raise translate(last or error, self._brokers, self._options) from error

    async def _connected(self) -> AIOKafkaClient:
        async with self._connecting:
            if self._client is None:
                await log_in(self._options)
                client = AIOKafkaClient(**self._options)
                try:
                    await client.bootstrap()
                except BaseException:
                    await client.close()
                    raise
                self._client = client
            return self._client


async def _offsets(
    client: AIOKafkaClient,
    node: int,
    asked: dict[str, list[int]],
    when: int,
    isolation: int,
    found: dict[TopicPartition, int],
) -> None:
    request = OffsetRequest(
        -1, isolation, [(topic, [(partition, when) for partition in numbers]) for topic, numbers in asked.items()]
    )
    response = await client.send(node, request)
    for topic, partitions in response.topics:
        for partition, code, _, offset in partitions:
            if code:
                raise for_code(code)(topic)
            found[TopicPartition(topic, partition)] = offset
