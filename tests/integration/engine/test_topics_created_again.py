"""A topic that is created again under a running worker is refused, whatever it holds by the time it is read on."""

from __future__ import annotations

import pytest

from headrace.engine.accept import accept_topic
from headrace.engine.worker import Phase
from headrace.runtime import Runtime
from tests.support.auditing import assert_promises_hold
from tests.support.deafness import Deafness
from tests.support.kafka import KafkaServer
from tests.support.platform import notebook, noted, pages, publish, settings_for, until_settled, watched
from tests.support.producing import produce
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
        assert runtime.health.readiness() == (False, ["partition_refused:notes/0"])
        detail = runtime.health.ready_report().body.decode()
        assert "created again" in detail and f"headrace topics --accept {topic_name}" in detail
        assert await pages(runtime) == {"a": list(range(10))}
        await _accept(runtime, topic_name)
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [*range(10), *range(100, 100 + new), 200]}
        assert runtime.health.readiness() == (True, [])
    await assert_promises_hold(database_url)


def _is_refused(runtime: Runtime) -> bool:
    return runtime.consumers["notes"].workers[0].phase is Phase.REFUSED


async def _accept(runtime: Runtime, topic: str) -> None:
    assert runtime.pool is not None and runtime.log is not None
    async with runtime.pool.acquire() as connection:
        await accept_topic(connection, runtime.log, topic, window_ids=runtime.settings.engine.dedupe_window_ids)
