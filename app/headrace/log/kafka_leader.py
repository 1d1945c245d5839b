"""Sends batches to one broker, those of several partitions in one request if they wait at the same time.

A broker answers a request when all partitions in it are decided, and reads the next request of a connection when it has
answered the one before. So a slow partition delays those that share a request or a connection with it. Therefore each
request under way has a connection to itself, and a send queue whose last batch was slow or failed sends its next ones
alone, over a connection that such queues share. None of them is the connection that tells who leads a partition.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.produce import ProduceRequest

from headrace.log.kafka_client import KafkaClient
from headrace.log.ports import TopicPartition

ALL_IN_SYNC = -1
SHARED = ("produce 1", "produce 2")
"""The connections, each with one request under way. More make smaller requests, which cost more time for each record;
fewer let the broker wait for us."""
ALONE = "produce alone"
"""The connection of the slow ones."""


class _Part(NamedTuple):
    partition: TopicPartition
    data: bytes
    offset: asyncio.Future[int]


class Leader:
    """The broker that leads some partitions."""

    def __init__(self, client: KafkaClient, node: int, timeout_seconds: float) -> None:
        self._client = client
        self._node = node
        self._timeout_ms = round(timeout_seconds * 500)
        """Half of what a batch may take, so that one that the replicas do not keep fails before its neighbours do."""
        self._waiting: list[_Part] = []
        self._free = list(SHARED)
        self._under_way: set[asyncio.Task[None]] = set()

    def send(self, partition: TopicPartition, data: bytes, *, alone: bool) -> asyncio.Future[int]:
        """Return the offset of the batch's first record once it is kept; its error is a KafkaError."""
        loop = asyncio.get_running_loop()
        part = _Part(partition, data, loop.create_future())
        if alone:
            self._start([part], ALONE)
        else:
            self._waiting.append(part)
            if len(self._waiting) == 1:
                loop.call_soon(self._flush)
        return part.offset

    def _flush(self) -> None:
        if not self._free:
            return
        parts, self._waiting = [part for part in self._waiting if not part.offset.done()], []
        if parts:
            self._start(parts, self._free.pop())

    def _start(self, parts: list[_Part], connection: str) -> None:
        task = asyncio.get_running_loop().create_task(self._request(parts, connection))
        self._under_way.add(task)
        task.add_done_callback(lambda task: self._ended(task, connection))

    def _ended(self, task: asyncio.Task[None], connection: str) -> None:
        self._under_way.discard(task)
        if connection != ALONE:
            self._free.append(connection)
            self._flush()

    async def _request(self, parts: list[_Part], connection: str) -> None:
        by_topic: dict[str, list[tuple[int, bytes]]] = {}
        for (topic, number), data, _ in parts:
            by_topic.setdefault(topic, []).append((number, data))
        try:
            request = ProduceRequest(None, ALL_IN_SYNC, self._timeout_ms, list(by_topic.items()))
            response = await self._client.send(self._node, request, group=connection)
            answers = {
                TopicPartition(topic, number): (code, offset)
                for topic, partitions in response.topics
                for number, code, offset, *_ in partitions
            }
        except BaseException as error:
            for part in parts:
                if not part.offset.done():
                    part.offset.set_exception(error if isinstance(error, Exception) else KafkaError("disconnected"))
            if not isinstance(error, Exception):
                raise
            return
        for partition, _, answer in parts:
            if answer.done():
                continue
            code, offset = answers[partition]
            if code:
                answer.set_exception(for_code(code)(f"{partition.topic}[{partition.partition}]"))
            else:
                answer.set_result(offset)
