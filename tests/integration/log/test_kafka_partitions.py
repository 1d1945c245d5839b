"""A partition whose broker is gone or slow stops only itself: two brokers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headrace.errors import TransportError
from headrace.log.partitioner import partition_for
from headrace.log.ports import Bounds, NewRecord, TopicPartition
from tests.integration.log.support import fetch_some, kafka_log
from tests.support.kafka import KafkaServer
from tests.support.waiting import until

KEYS = [next(b"%d" % n for n in range(100) if partition_for(b"%d" % n, 2) == number) for number in range(2)]
"""A key of each partition."""


def _record(topic: str, partition: int) -> NewRecord:
    return NewRecord(topic=topic, key=KEYS[partition], value=b"value", headers=[])


async def test_a_leaderless_partition_stops_only_itself(brokers: list[KafkaServer], topic_name: str) -> None:
    first, second = brokers
    alive, dead = TopicPartition(topic_name, 0), TopicPartition(topic_name, 1)
    await first.create_topic_on(topic_name, [[first.node_id], [second.node_id]])
    async with kafka_log(first.url, request_timeout_seconds=8) as log:
        assert len(await log.publish([_record(topic_name, 0), _record(topic_name, 1)])) == 2

        await second.kill()
        failing = asyncio.ensure_future(log.publish([_record(topic_name, 1)]))
        publishing = [asyncio.ensure_future(log.publish([_record(topic_name, 0)])) for _ in range(20)]
        assert [position.offset for (position,) in await asyncio.gather(*publishing)] == list(range(1, 21))
        assert not failing.done()

        async def is_leaderless() -> bool:
            return await first.has_leaders(topic_name) == [True, False]

        await until(is_leaderless, "the cluster knows that the second broker is gone")
        bounds = await log.bounds([alive, dead])
        assert dict(bounds) == {alive: Bounds(0, 21, 21)}
        with pytest.raises(TransportError, match=r"\[1\] does not answer"):
            bounds[dead]
        assert await log.bounds([alive]) == {alive: Bounds(0, 21, 21)}
        reader = await log.reader({alive: 0})
        await until(lambda: fetch_some(reader), "the living partition is read")
        await reader.close()
        with pytest.raises(TransportError, match=rf"no leader for {topic_name}\[1\]: are all of its brokers up"):
            await log.bounds([dead])
        with pytest.raises(TransportError):
            await failing
        assert await log.publish([_record(topic_name, 0)])

        await second.start()
        await until(lambda: _is_published(log, topic_name), "the second partition takes records again")
        assert (await log.bounds([alive, dead]))[dead].end >= 2


async def test_a_slow_partition_delays_no_other(brokers: list[KafkaServer], topic_name: str) -> None:
    """The follower of one topic hangs, so that its leader answers when the cluster has counted the follower out."""
    first, second = brokers
    slow_topic, quick_topic = f"{topic_name}.slow", f"{topic_name}.quick"
    await first.create_topic_on(slow_topic, [[first.node_id, second.node_id]])
    await first.create_topic_on(quick_topic, [[first.node_id]])
    async with kafka_log(first.url) as log:
        await log.publish([_record(slow_topic, 0), _record(quick_topic, 0)])
        for _ in range(2):  # sent with others, and as one that was slow the last time
            await until(lambda: _has_replicas(first, slow_topic, 2), "the follower has caught up")
            second.pause()
            slow = asyncio.ensure_future(log.publish([_record(slow_topic, 0)]))
            await asyncio.wait({slow}, timeout=0.1)  # it is under way: not in one request with the next
            assert await log.publish([_record(quick_topic, 0)])
            assert not slow.done()
            await slow
            await until(lambda: _has_replicas(first, slow_topic, 1), "the follower is counted out")
            second.resume()


async def _has_replicas(kafka: KafkaServer, topic: str, replicas: int) -> bool:
    return await kafka.in_sync(topic) == [replicas]


async def _is_published(log: Any, topic: str) -> bool:
    try:
        return bool(await log.publish([_record(topic, 1)]))
    except TransportError:
        return False
