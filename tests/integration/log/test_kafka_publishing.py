"""Publishing to Kafka: records that are too large or unwritable, cancelled and unexpected ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headrace.errors import RecordTooLargeError, TransportError
from headrace.log.ports import Bounds, NewRecord, Position, TopicPartition
from tests.integration.log.support import fetch_some, kafka_log, records, values
from tests.support.kafka import KafkaServer
from tests.support.waiting import until


async def test_a_record_that_is_too_large_disturbs_no_other(kafka: KafkaServer, topic_name: str) -> None:
    async with kafka_log(kafka.url) as log:
        await log.create(topic_name, 2)
        large = NewRecord(topic=topic_name, key=b"k", value=bytes(1_048_577), headers=[])

        results = await asyncio.gather(
            *(log.publish(records(topic_name, [n])) for n in range(20)), log.publish([large]), return_exceptions=True
        )

        assert isinstance(results.pop(), RecordTooLargeError)
        assert not any(isinstance(result, BaseException) for result in results)


async def test_a_record_that_only_the_broker_refuses_is_named(kafka: KafkaServer, topic_name: str) -> None:
    await kafka.create_topic(topic_name, 1, max_message_bytes="1000")
    async with kafka_log(kafka.url, compression="none") as log:
        large = NewRecord(topic=topic_name, key=b"k", value=bytes(2_000), headers=[])

        with pytest.raises(RecordTooLargeError, match=r"max\.message\.bytes\.$"):
            await log.publish([large])
        with pytest.raises(RecordTooLargeError, match="The other 2 events of the call may be in the log: publish them"):
            await log.publish([large, *records(topic_name, [1, 2])])

        assert await log.publish(records(topic_name, [3])) == [Position(topic_name, 0, 2)]


async def test_an_unexpected_error_is_told_to_all_who_wait(
    kafka: KafkaServer, topic_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kafka_log(kafka.url) as log:
        await log.create(topic_name, 1)
        await log.publish(records(topic_name, [0]))

        async def fail(*_: Any, **__: Any) -> None:
            raise RuntimeError("a bug of the client")

        with monkeypatch.context() as patched:
            patched.setattr("headrace.log.kafka_client.KafkaClient.send", fail)
            async with asyncio.timeout(20):
                results = await asyncio.gather(
                    *(log.publish(records(topic_name, [n])) for n in range(20)), return_exceptions=True
                )

        assert all(isinstance(result, TransportError) and "a bug of the client" in str(result) for result in results)
        assert await log.publish(records(topic_name, [1])) == [Position(topic_name, 0, 1)]


async def test_publishers_are_told_when_sending_is_cancelled(kafka: KafkaServer, topic_name: str) -> None:
    async with kafka_log(kafka.url, linger_seconds=1) as log:
        await log.create(topic_name, 1)
        publishing = [asyncio.create_task(log.publish(records(topic_name, [n]))) for n in range(3)]
        queues = log._publisher._queues
        await until(
            lambda: [queue for queue in queues.get(topic_name, ()) if queue.task is not None], "the records wait"
        )

        for queue in queues[topic_name]:
            assert queue.task is not None
            queue.task.cancel()

        async with asyncio.timeout(20):
            results = await asyncio.gather(*publishing, return_exceptions=True)
        assert all(isinstance(result, TransportError) for result in results)


async def test_an_unwritable_record_holds_up_no_later_one(kafka: KafkaServer, topic_name: str) -> None:
    async with kafka_log(kafka.url) as log:
        await log.create(topic_name, 1)
        wrong = NewRecord(topic=topic_name, key=b"k", value="text", headers=[])  # type: ignore[arg-type]

        with pytest.raises(Exception, match="bytes"):
            await log.publish([wrong])

        async with asyncio.timeout(20):
            assert await log.publish(records(topic_name, [1])) == [Position(topic_name, 0, 0)]


async def test_nothing_is_sent_of_a_call_with_a_large_record(kafka: KafkaServer, topic_name: str) -> None:
    async with kafka_log(kafka.url, max_record_bytes=2_000) as log:
        await log.create(topic_name, 1)
        large = NewRecord(topic=topic_name, key=b"k", value=bytes(2_001), headers=[])

        with pytest.raises(RecordTooLargeError, match="HEADRACE_KAFKA_MAX_RECORD_BYTES=2000"):
            await log.publish([*records(topic_name, range(5)), large])

        partition = TopicPartition(topic_name, 0)
        assert await log.bounds([partition]) == {partition: Bounds(0, 0, 0)}


async def test_halves_find_the_record_that_the_broker_refuses(kafka: KafkaServer, topic_name: str) -> None:
    """Each record that the broker takes is kept; a call with a single record that is refused names it."""
    await kafka.create_topic(topic_name, 1, max_message_bytes="1000")
    async with kafka_log(kafka.url, compression="none") as log:
        large = NewRecord(topic=topic_name, key=b"k", value=bytes(2_000), headers=[])
        refused: list[NewRecord] = []
        kept: list[Position] = []

        async def publish(batch: list[NewRecord]) -> None:
            try:
                kept.extend(await log.publish(batch))
            except RecordTooLargeError:
                if len(batch) == 1:
                    refused.extend(batch)
                    return
                for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
                    await publish(half)

        await publish([*records(topic_name, range(30)), large, *records(topic_name, range(30, 60))])

        assert refused == [large]
        assert len(kept) == 60
        reader = await log.reader({TopicPartition(topic_name, 0): 0})
        found: list[int] = []

        async def has_all() -> bool:
            found.extend(values(await fetch_some(reader)))
            return set(range(60)) <= set(found)

        await until(has_all, "all others are kept")
        await reader.close()


async def test_a_large_record_of_one_call_fails_no_other_call(kafka: KafkaServer, topic_name: str) -> None:
    """They share a batch, which the broker refuses as a whole."""
    await kafka.create_topic(topic_name, 1, max_message_bytes="1000")
    async with kafka_log(kafka.url, compression="none", linger_seconds=0.1) as log:
        large = NewRecord(topic=topic_name, key=b"k", value=bytes(2_000), headers=[])

        results = await asyncio.gather(
            log.publish([large]), *(log.publish(records(topic_name, [n])) for n in range(20)), return_exceptions=True
        )

        assert isinstance(results.pop(0), RecordTooLargeError)
        assert not [result for result in results if isinstance(result, BaseException)]


async def test_small_records_fit_a_topic_of_small_batches(kafka: KafkaServer, topic_name: str) -> None:
    await kafka.create_topic(topic_name, 1, max_message_bytes="1000")
    async with kafka_log(kafka.url, compression="none") as log:
        positions = [p for _ in range(3) for p in await log.publish(records(topic_name, range(1_000)))]

    assert [position.offset for position in positions] == list(range(3_000))
