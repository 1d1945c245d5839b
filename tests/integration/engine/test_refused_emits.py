"""An emit that the topic never takes becomes a dead letter alone; all others leave, and no partition stands."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from headrace import Emit, Event, Headrace, State
from headrace.runtime import Runtime
from headrace.settings import Settings
from tests.support.kafka import KafkaServer
from tests.support.platform import (
    Notes,
    client,
    execute,
    fetch,
    noted,
    publish,
    sample,
    settings_for,
    states,
    until_settled,
    value,
    watched,
)
from tests.support.waiting import until

PAGES = [f"page-{number}" for number in range(6)]
TEXT = random.Random(1).randbytes(5_000).hex()
LARGE = 3
"""The number whose echo is larger than its topic takes."""


async def test_one_refused_emit_stops_no_other(database_url: str, topic_name: str, kafka: KafkaServer) -> None:
    """At its commit and at a takeover; a replay publishes it once the topic takes it."""
    await kafka.create_topic(topic_name, 1)
    await kafka.create_topic(f"{topic_name}-echoes", 1, max_message_bytes="3000")
    platform = _echoing(settings_for(database_url, kafka.url, partitions=1), topic_name)
    events = [noted(topic_name, page, number) for number in range(1, 6) for page in PAGES]
    events = [each for each in events if _number(each) != LARGE or each.key == b"page-0"]
    expected = {page: [1, 2, 4, 5] for page in PAGES}

    async with watched(platform) as runtime:
        await publish(runtime, *events)
        await until_settled(runtime, "notes", "echoes")
        assert await _echoes(runtime) == expected
        (letter,) = await _letters(runtime)
        assert (letter["reason"], letter["type"], letter["topic"]) == ("emit_refused", "echoed", f"{topic_name}-echoes")
        assert f"Kafka refused an event for {topic_name}-echoes as too large" in letter["error"]
        assert sample(runtime, "emits_refused_total") == 1

    # The owner dies before it has published or marked anything.
    await execute(database_url, "update headrace.claim set emitted_through = 0; delete from headrace.dead_letter")
    async with watched(platform) as runtime, client(platform) as http:
        await until_settled(runtime, "notes", "echoes")
        assert await _echoes(runtime) == expected
        assert sample(runtime, "emits_republished_total") > 0
        (letter,) = await _letters(runtime)
        assert letter["reason"] == "emit_refused"

        await _replay(http, letter["id"])  # refused once more: another letter, and the partition flows
        await until(lambda: _has_another(runtime, letter["id"]), "there is another letter")
        await publish(runtime, noted(topic_name, "page-0", 6))
        await until_settled(runtime, "notes", "echoes")

        await _allow(kafka, f"{topic_name}-echoes", 10_000)
        (letter,) = await _letters(runtime)
        await _replay(http, letter["id"])
        await until(lambda: _has_echo(runtime, "page-0", LARGE), "the echo has arrived")
        assert await _echoes(runtime) == expected | {"page-0": [1, 2, 4, 5, 6, LARGE]}
        assert await _letters(runtime) == []


def _echoing(settings: Settings, topic: str) -> Headrace:
    platform = Headrace("notebook", settings)

    class Noted(Event, type="noted", topic=topic, key="page"):
        page: str
        number: int

    class Echoed(Event, type="echoed", topic=f"{topic}-echoes", key="page"):
        page: str
        number: int
        text: str

    notes, echoes = platform.subscription("notes"), platform.subscription("echoes")

    @notes.on(Noted)
    def note(event: Noted, kept: State[Notes], emit: Emit) -> None:
        kept.numbers.append(event.number)
        emit(Echoed(page=event.page, number=event.number, text=TEXT[: 8_000 if event.number == LARGE else 10]))

    @echoes.on(Echoed)
    def echo(event: Echoed, kept: State[Notes]) -> None:
        kept.numbers.append(event.number)

    return platform


def _number(event: Any) -> int:
    return int(event.value.split(b'"number": ')[1].rstrip(b"}"))


async def _echoes(runtime: Runtime) -> dict[str, list[int]]:
    return {page: kept["numbers"] for page, kept in (await states(runtime, "echoes", "notes")).items()}


async def _has_echo(runtime: Runtime, page: str, number: int) -> bool:
    return number in (await _echoes(runtime)).get(page, [])


async def _letters(runtime: Runtime) -> list[Any]:
    return await fetch(runtime, "select * from headrace.dead_letter where decision is null")


async def _has_another(runtime: Runtime, letter: Any) -> bool:
    sql = "select count(*) from headrace.dead_letter where decision is null and id <> $1"
    return bool(await value(runtime, sql, letter))


async def _replay(http: Any, letter: Any) -> None:
    answer = await http.post(f"/dead-letters/{letter}/replay")
    assert answer.status_code < 300, answer.text


async def _allow(kafka: KafkaServer, topic: str, size: int) -> None:
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    await asyncio.to_thread(lambda: admin.incremental_alter_configs([resource])[resource].result(30))
