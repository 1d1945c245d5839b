"""A topic that is created again is refused until it is accepted, whatever it holds by the time it is read on."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from headrace.engine.accept import accept_topic
from headrace.engine.worker import Phase
from headrace.runtime import Runtime
from tests.support.auditing import assert_promises_hold
from tests.support.deafness import Deafness
from tests.support.kafka import KafkaServer
from tests.support.platform import notebook, noted, pages, publish, running, settings_for, until_settled, watched
from tests.support.producing import produce, produce_in_transaction
from tests.support.waiting import until


@pytest.mark.parametrize("new", [10, 25], ids=["up to the worker's position", "beyond it"])
async def test_topic_created_again_and_refilled_unnoticed_is_refused(
    database_url: str,
    topic_name: str,
    kafka: KafkaServer,
    service_name: str,
    monkeypatch: pytest.MonkeyPatch,
    new: int,
) -> None:
    """Nothing of it is applied until it is accepted, and everything afterwards."""
    deafness = Deafness(monkeypatch)
    platform = notebook(settings_for(database_url, kafka.url, partitions=1), topic_name, service=service_name)
    async with watched(platform) as runtime:
        await publish(runtime, *(noted(topic_name, "a", number) for number in range(10)))
        await until_settled(runtime, "notes")
        deafness.begin()
        await kafka.delete_topic(topic_name)
        await kafka.create_topic(topic_name, 1)
        await produce(kafka.bootstrap, [noted(topic_name, "a", number) for number in range(100, 100 + new)])
        deafness.end()
        await publish(runtime, noted(topic_name, "a", 200))

        await until(lambda: _is_refused(runtime), "the topic is refused")
        _assert_tells(runtime, topic_name)
        assert await pages(runtime) == {"a": list(range(10))}
        assert await _accept(runtime, topic_name) == [f"{service_name}.notes: {topic_name}/0 continues at offset 0"]
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [*range(10), *range(100, 100 + new), 200]}
        assert runtime.health.readiness() == (True, [])
    await assert_promises_hold(database_url)


@pytest.mark.parametrize("start", ["earliest", "latest"], ids=["a marker stands there", "none was applied"])
async def test_topic_created_again_is_refused_though_no_record_tells(
    database_url: str, topic_name: str, kafka: KafkaServer, service_name: str, start: Any
) -> None:
    """The new topic has no record at the offset of the last one that was applied, or none was applied yet."""
    settings = settings_for(database_url, kafka.url, partitions=1)
    platform = notebook(settings, topic_name, service=service_name, start=start)
    await kafka.create_topic(topic_name, 1)
    await produce(kafka.bootstrap, [noted(topic_name, "a", number) for number in range(10)])
    async with running(platform) as runtime:
        await until_settled(runtime, "notes")
        before = await pages(runtime)
        assert before == ({} if start == "latest" else {"a": list(range(10))})
    await kafka.delete_topic(topic_name)
    await kafka.create_topic(topic_name, 1)
    for numbers in (range(100, 109), range(109, 120)):  # the first marker is at offset 9
        records = [noted(topic_name, "a", number) for number in numbers]
        await produce_in_transaction(kafka.bootstrap, records, name=f"sender-{secrets.token_hex(4)}", is_committed=True)

    async with running(platform, is_refused=True) as runtime:
        _assert_tells(runtime, topic_name)
        assert await pages(runtime) == before
        assert await _accept(runtime, topic_name) == [f"{service_name}.notes: {topic_name}/0 continues at offset 0"]
    async with running(platform) as runtime:
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [*before.get("a", []), *range(100, 120)]}
    await assert_promises_hold(database_url)


async def test_topic_created_again_before_anything_was_read_is_read(
    database_url: str, topic_name: str, kafka: KafkaServer, service_name: str
) -> None:
    """Nothing of it can be skipped."""
    platform = notebook(settings_for(database_url, kafka.url, partitions=1), topic_name, service=service_name)
    for _ in range(2):
        await kafka.create_topic(topic_name, 1)
        async with running(platform):
            pass
        await kafka.delete_topic(topic_name)
    await kafka.create_topic(topic_name, 1)
    async with running(platform) as runtime:
        await publish(runtime, noted(topic_name, "a", 1))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1]}


def _is_refused(runtime: Runtime) -> bool:
    return runtime.consumers["notes"].workers[0].phase is Phase.REFUSED


def _assert_tells(runtime: Runtime, topic: str) -> None:
    assert runtime.health.readiness() == (False, ["partition_refused:notes/0"])
    detail = runtime.health.ready_report().body.decode()
    assert "created again" in detail and f"headrace topics --accept {topic}" in detail


async def _accept(runtime: Runtime, topic: str) -> list[str]:
    assert runtime.pool is not None and runtime.log is not None
    async with runtime.pool.acquire() as connection:
        return await accept_topic(connection, runtime.log, topic, window_ids=runtime.settings.engine.dedupe_window_ids)
