"""The servers that the other tests rely on: they start, stop, come back with their data, and keep strangers out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.support.kafka import PASSWORD, USER, KafkaServer


def _produce(kafka: KafkaServer, topic: str, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "acks": "all"})
    producer.produce(topic, value)
    assert producer.flush(30) == 0


def _end_of(kafka: KafkaServer, topic: str) -> int:
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "test"})
    try:
        return int(consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=30)[1])
    finally:
        consumer.close()


def _log_in(kafka: KafkaServer, password: str) -> AdminClient:
    return AdminClient(
        {
            "bootstrap.servers": kafka.sasl_bootstrap,
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": USER,
            "sasl.password": password,
            "log_level": 0,
        }
    )


async def test_records_survive_a_killed_broker_that_starts_again(topic_name: str) -> None:
    kafka = KafkaServer()
    await kafka.start()
    try:
        await kafka.create_topic(topic_name, 1)
        _produce(kafka, topic_name, b"kept")
        await kafka.restart()
        assert _end_of(kafka, topic_name) == 1
        await kafka.shut_down()
        await kafka.start()
        assert _end_of(kafka, topic_name) == 1
    finally:
        await kafka.stop()
    assert kafka.pid is None


async def test_a_topic_can_be_deleted_and_created_again(kafka: KafkaServer, topic_name: str) -> None:
    await kafka.create_topic(topic_name, 1)
    _produce(kafka, topic_name, b"gone")
    await kafka.delete_topic(topic_name)
    await kafka.create_topic(topic_name, 1)
    assert _end_of(kafka, topic_name) == 0


@pytest.mark.parametrize(("change", "is_let_in"), [(str, True), (str.upper, False)])
async def test_the_second_listener_asks_for_the_password(
    kafka: KafkaServer, change: Callable[[str], str], is_let_in: bool
) -> None:
    if kafka.is_external:
        pytest.skip("the listener is the test server's own")
    admin = _log_in(kafka, change(PASSWORD))
    if is_let_in:
        assert admin.list_topics(timeout=30).brokers
    else:
        with pytest.raises(KafkaException):
            admin.list_topics(timeout=5)
