"""What the platform asks of the Kafka cluster apart from records: topics, their creation, offsets, one odd fetch."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from aiokafka.client import CoordinationType
from aiokafka.errors import (
    BrokerResponseError,
    ClusterAuthorizationFailedError,
    InvalidPartitionsError,
    InvalidReplicationFactorError,
    InvalidTopicError,
    KafkaConnectionError,
    KafkaError,
    LeaderNotAvailableError,
    PolicyViolationError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.admin import CreateTopicsRequest, DescribeGroupsRequest
from aiokafka.protocol.api import Response
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest

from headrace.errors import ConfigurationError, TransportError
from headrace.log.kafka_client import KafkaClient
from headrace.log.kafka_connection import Options, log_in, translate
from headrace.log.kafka_topic_ids import MetadataRequest, by_id
from headrace.log.ports import Bounds, TopicInfo, TopicPartition
from headrace.log.refusals import check_topic_name, no_such_partition, no_such_topic

T = TypeVar("T")

READ_UNCOMMITTED, READ_COMMITTED = 0, 1
EARLIEST, LATEST = -2, -1
RETRY_SECONDS = 0.1
ANSWER_SECONDS = 3.0
"""A broker that does not answer in this time may hang, so the next one is asked."""
ELECTION_SECONDS = 3.0
"""A partition without a leader is waited for this long if others have answered; an election takes less."""
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
        self._client: KafkaClient | None = None
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

        async def ask(client: KafkaClient) -> dict[str, TopicInfo]:
            response = await self._metadata(client, names)
            found = {}
            for code, topic, _, partitions in response.topics:
                error = for_code(code)
                if error in (UnknownTopicOrPartitionError, InvalidTopicError):
                    continue
                if code:
                    raise error(topic)
                topic_id = getattr(response, "topic_ids", {}).get(topic)
                found[topic] = TopicInfo(topic, len(partitions), f"kafka:{response.cluster_id}", topic_id)
            return found

        return await self._answered(ask)

    async def create(self, topic: str, partitions: int) -> None:
        """Create the topic and wait until each of its partitions has a leader; nothing happens if it exists."""
        check_topic_name(topic, partitions)

        async def ask(client: KafkaClient) -> None:
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

        async def settled(client: KafkaClient) -> None:
            if min((await self._all_leaders(client, [topic])).values()) < 0:
                raise LeaderNotAvailableError(topic)

        await self._answered(ask)
        await self._answered(settled, missing_is_late=True)

    async def bounds(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Bounds]:
        """Return begin, last stable offset and high watermark of each partition that has a leader; see the port."""
        wanted, found = set(partitions), _Answers()

        async def ask(client: KafkaClient) -> None:
            by_node: dict[int, list[TopicPartition]] = defaultdict(list)
            missing = wanted - found.keys()
            for partition, node in (await self._leaders(client, missing)).items():
                if node >= 0:
                    by_node[node].append(partition)
            asking = [_from_leader(_add_bounds(client, node, asked, found), asked) for node, asked in by_node.items()]
            errors = [error for error in await asyncio.gather(*asking, return_exceptions=True) if error]
            if errors:
                raise errors[0]
            for topic, number in sorted(missing - found.keys()):
                raise LeaderNotAvailableError(f"{topic}[{number}]")

        asking = asyncio.get_running_loop().create_task(self._answered(ask))
        try:
            await asyncio.wait({asking}, timeout=ELECTION_SECONDS)
            while not asking.done() and not found:
                await asyncio.wait({asking}, timeout=ELECTION_SECONDS)
            if asking.done() and (error := asking.exception()) and not (found and isinstance(error, TransportError)):
                raise error
        finally:
            asking.cancel()
        return found

    async def offset_at(self, partition: TopicPartition, milliseconds: int) -> int:
        """Return the offset of the first record of this time or later; see the port."""

        async def ask(client: KafkaClient) -> int:
            node = await self._leader(client, partition)
            found = await _from_leader(_offsets(client, node, [partition], milliseconds, READ_COMMITTED), [partition])
            if partition not in found:
                raise LeaderNotAvailableError(f"{partition.topic}[{partition.partition}]")
            return found[partition]

        offset = await self._answered(ask)
        return offset if offset >= 0 else (await self.bounds([partition]))[partition].end

    async def fetch(self, partition: TopicPartition, offset: int, max_bytes: int, topic_ids: Mapping[str, str]) -> Any:
        """Return the partition's part of one raw fetch response, from the offset on, without waiting for more."""

        async def ask(client: KafkaClient) -> Any:
            node = await self._leader(client, partition)
            request = FetchRequest(
                0, 1, max_bytes, READ_COMMITTED, [(partition.topic, [(partition.partition, offset, max_bytes)])]
            )
            response = await _from_leader(client.send(node, by_id(request, topic_ids)), [partition])
            ((_, ((_, code, *part),)),) = response.topics
            if code:
                raise for_code(code)(partition.topic)
            return part

        return await self._answered(ask)

    async def is_dividing(self, group: str) -> bool:
        """True while the members of a consumer group are being told what is theirs. Raises: TransportError."""

        async def ask(client: KafkaClient) -> bool:
            node = await client.coordinator_lookup(CoordinationType.GROUP, group)
            response = await client.send(node, DescribeGroupsRequest([group]))
            ((code, _, state, *_),) = response.groups
            if code:
                raise for_code(code)(group)
            return state not in ("Stable", "Empty", "Dead")

        return await self._answered(ask)

    async def _leader(self, client: KafkaClient, partition: TopicPartition) -> int:
        """Return the broker that leads the partition. Raises: as `_leaders`, LeaderNotAvailableError (it has none)."""
        node = (await self._leaders(client, [partition]))[partition]
        if node < 0:
            raise LeaderNotAvailableError(f"{partition.topic}[{partition.partition}]")
        return node

    async def _leaders(self, client: KafkaClient, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the node that leads each partition, -1 if none does. Raises: LogMismatchError (no such partition)."""
        leaders = await self._all_leaders(client, sorted({topic for topic, _ in partitions}))
        for partition in partitions:
            if partition not in leaders:
                raise no_such_partition(partition)
        return {partition: leaders[partition] for partition in partitions}

    async def _all_leaders(self, client: KafkaClient, topics: Sequence[str]) -> dict[TopicPartition, int]:
        leaders = {}
        for code, topic, _, partitions in (await self._metadata(client, topics)).topics:
            if code:
                raise for_code(code)(topic)
            for _, partition, leader, *_ in partitions:
                leaders[TopicPartition(topic, partition)] = leader
        return leaders

    async def _metadata(self, client: KafkaClient, topics: Sequence[str]) -> Response:
        """Return what the first broker that answers says of the topics. Raises what the last of them raised."""
        request = MetadataRequest(list(topics))
        nodes = [broker.nodeId for broker in client.cluster.brokers()]
        random.shuffle(nodes)
        for node in nodes:
            try:
                async with asyncio.timeout(None if node == nodes[-1] else ANSWER_SECONDS):
                    response = await client.send(node, request)
            except (KafkaError, OSError, TimeoutError):
                if node == nodes[-1]:
                    raise
            else:
                client.cluster.update_metadata(response)  # else a broker that joined later is unknown to send()
                return response
        raise KafkaConnectionError("no broker is known")

    async def _answered(self, ask: Callable[[KafkaClient], Awaitable[T]], *, missing_is_late: bool = False) -> T:
        """Ask until there is an answer: elections are waited for, and a broken client is replaced once."""
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

    async def _connected(self) -> KafkaClient:
        async with self._connecting:
            if self._client is None:
                await log_in(self._options)
                client = KafkaClient(**self._options)
                try:
                    await client.bootstrap()
                except BaseException:
                    await client.close()
                    raise
                self._client = client
            return self._client


class _Answers(dict[TopicPartition, Bounds]):
    """Bounds of the partitions whose leaders answered."""

    def __missing__(self, partition: TopicPartition) -> Bounds:
        raise TransportError(
            f"the leader of {partition.topic}[{partition.partition}] does not answer: is its Kafka broker up?"
        )


async def _from_leader(answer: Awaitable[T], asked: Sequence[TopicPartition]) -> T:
    """Return the answer. A leader that cannot be reached is waited for as one that is not elected yet."""
    try:
        return await answer
    except BrokerResponseError:
        raise
    except (KafkaError, OSError, TimeoutError) as error:
        topic, partition = asked[0]
        raise LeaderNotAvailableError(f"{topic}[{partition}]") from error


async def _add_bounds(
    client: KafkaClient, node: int, asked: Sequence[TopicPartition], found: dict[TopicPartition, Bounds]
) -> None:
    begins, ends, highs = await asyncio.gather(
        _offsets(client, node, asked, EARLIEST, READ_COMMITTED),
        _offsets(client, node, asked, LATEST, READ_COMMITTED),
        _offsets(client, node, asked, LATEST, READ_UNCOMMITTED),
    )
    for partition in begins.keys() & ends.keys() & highs.keys():
        found[partition] = Bounds(begins[partition], ends[partition], max(ends[partition], highs[partition]))


async def _offsets(
    client: KafkaClient, node: int, asked: Sequence[TopicPartition], when: int, isolation: int
) -> dict[TopicPartition, int]:
    """Return the offset of each partition that the node leads. Raises: BrokerResponseError (of another kind)."""
    by_topic: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for topic, partition in asked:
        by_topic[topic].append((partition, when))
    found = {}
    response = await client.send(node, OffsetRequest(-1, isolation, list(by_topic.items())))
    for topic, partitions in response.topics:
        for partition, code, _, offset in partitions:
            if not code:
                found[TopicPartition(topic, partition)] = offset
            elif not for_code(code).retriable:
                raise for_code(code)(topic)
    return found
