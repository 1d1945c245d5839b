"""Which of aiokafka's fetch requests waits for more; aiokafka's fetcher is real, and no broker is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace

from aiokafka import AIOKafkaConsumer
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.structs import TopicPartition

from headrace.log.kafka_linger import GATHERED_BYTES, LingeringFetcher, let_linger

PARTITION = TopicPartition("notes", 0)
LONG_POLL = (500, 1)


@asynccontextmanager
async def lingering() -> AsyncIterator[tuple[LingeringFetcher, SubscriptionState]]:
    """A fetcher that has something to ask for, of a broker that is not there."""
    client = AIOKafkaClient()
    client.cluster.leader_for_partition = lambda partition: 0
    subscription = SubscriptionState()
    fetcher = Fetcher(client, subscription, fetch_max_wait_ms=500)
    consumer: AIOKafkaConsumer = SimpleNamespace(_fetcher=fetcher)
    try:
        subscription.assign_from_user([PARTITION])
        subscription.seek(PARTITION, 7)
        yield let_linger(consumer), subscription
    finally:
        await fetcher.close()
        await client.close()


def waits(fetcher: LingeringFetcher, subscription: SubscriptionState) -> tuple[int, int]:
    """Return for how many milliseconds, and how many bytes, the next request lets the broker wait."""
    (_, request), *_ = fetcher._get_actions_per_node(subscription.subscription.assignment)[0]
    return request._max_wait_ms, request._min_bytes


async def test_request_waits_as_long_as_the_batch_before_it_took() -> None:
    async with lingering() as (fetcher, subscription):
        assert waits(fetcher, subscription) == LONG_POLL
        fetcher.linger(0.012)
        assert waits(fetcher, subscription) == (12, GATHERED_BYTES)


async def test_only_one_request_waits() -> None:
    async with lingering() as (fetcher, subscription):
        fetcher.linger(0.012)
        waits(fetcher, subscription)
        assert waits(fetcher, subscription) == LONG_POLL


async def test_wait_is_bounded_however_long_a_batch_took() -> None:
    async with lingering() as (fetcher, subscription):
        fetcher.linger(3.0)
        assert waits(fetcher, subscription) == (25, GATHERED_BYTES)


async def test_very_short_batch_lets_no_request_wait() -> None:
    async with lingering() as (fetcher, subscription):
        fetcher.linger(0.0004)
        assert waits(fetcher, subscription) == LONG_POLL
