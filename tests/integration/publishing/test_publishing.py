"""Code publishes events: from a coroutine, from a route and from a script, with the checks of the HTTP door."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from pydantic import BaseModel, PositiveInt

import headrace
from headrace import Event, Headrace, HeadraceError, Publisher, State
from headrace.cloudevents import decode_record
from headrace.envelope import Envelope
from headrace.errors import ConfigurationError, DecodeError, RecordTooLargeError, SchemaError, TransportError
from headrace.log.memory import MemoryLog
from headrace.log.ports import NewRecord, Position, TopicPartition
from headrace.runtime import Runtime
from headrace.settings import IngestSettings, Settings
from tests.support.platform import running, sample, settings_for, states, until_settled
from tests.support.routes import application, caller


class Credited(Event, type="credited", topic="credits", key="customer"):
    customer: str
    amount: PositiveInt


@headrace.event(type="noted", topic="notes")
class Noted(msgspec.Struct):
    text: str


class Undeclared(Event, type="undeclared", topic="credits"):
    text: str


class Total(BaseModel):
    amounts: list[int] = []


def service(settings: Settings) -> Headrace:
    """A service that takes credits, and publishes notes for others."""
    events = Headrace("shop", settings)
    events.declare(Noted)

    @events.subscription("totals").on(Credited)
    def add(event: Credited, total: State[Total]) -> None:
        total.amounts.append(event.amount)

    return events


@pytest_asyncio.fixture
async def events(database_url: str) -> AsyncIterator[Headrace]:
    platform = service(settings_for(database_url))
    async with running(platform, MemoryLog()):
        yield platform


def runtime_of(platform: Headrace) -> Runtime:
    assert platform.runtime is not None
    return platform.runtime


async def envelopes(platform: Headrace, topic: str) -> list[Envelope]:
    """What the topic holds, as a consumer reads it."""
    log = runtime_of(platform).log
    assert log is not None
    reader = await log.reader({TopicPartition(topic, number): 0 for number in range(3)})
    found = await reader.fetch(1_000, 2**30, 0.0)
    return [decode_record(record)[0] for records in found.values() for record in records]


async def test_one_event_is_answered_with_id_and_position(events: Headrace) -> None:
    first = await events.publish(Credited(customer="ada", amount=5))
    second = await events.publish(Credited(customer="ada", amount=7))
    assert first.id != second.id
    assert first.position.topic == "credits"
    assert second.position == Position("credits", first.position.partition, first.position.offset + 1)
    await until_settled(runtime_of(events), "totals")
    assert await states(runtime_of(events), "totals", "total") == {"ada": {"amounts": [5, 7]}}
    assert sample(runtime_of(events), "ingest_accepted_total", topic="credits", type="credited") == 2


async def test_a_list_is_published_in_order_over_several_topics(events: Headrace) -> None:
    many: list[Event | msgspec.Struct] = [Credited(customer="ada", amount=number) for number in range(1, 501)]
    many.append(Noted(text="done"))
    published = await events.publish(many)
    assert [each.position.topic for each in published] == ["credits"] * 500 + ["notes"]
    assert len({each.id for each in published}) == 501
    await until_settled(runtime_of(events), "totals")
    assert await states(runtime_of(events), "totals", "total") == {"ada": {"amounts": list(range(1, 501))}}
    assert await events.publish([]) == []


async def test_the_same_id_takes_effect_once_over_both_doors(events: Headrace) -> None:
    """The id of `publish` and the Idempotency-Key of a request name the same event."""
    for _ in range(2):
        assert (await events.publish(Credited(customer="ada", amount=5), id="payment-7")).id == "payment-7"
    async with caller(application(events)) as client:
        body, headers = {"customer": "ada", "amount": 5}, {"Idempotency-Key": "payment-7"}
        assert (await client.post("/events/credited", json=body, headers=headers)).status_code == 202
    await until_settled(runtime_of(events), "totals")
    assert await states(runtime_of(events), "totals", "total") == {"ada": {"amounts": [5]}}


async def test_a_given_key_replaces_the_declared_one(events: Headrace) -> None:
    await events.publish(Credited(customer="ada", amount=5), key="bob")
    (envelope,) = await envelopes(events, "credits")
    assert (envelope.partitionkey, envelope.source, envelope.type) == ("bob", "/shop/credited", "credited")
    await until_settled(runtime_of(events), "totals")
    assert await states(runtime_of(events), "totals", "total") == {"bob": {"amounts": [5]}}


@pytest.mark.parametrize(
    ("event", "options", "error", "sentence"),
    [
        (Undeclared(text="x"), {}, ConfigurationError, r"write events\.declare\(Undeclared\)"),
        ({"customer": "ada"}, {}, ConfigurationError, r"dict cannot be published, since it is not an event type"),
        (Credited.model_construct(customer="ada", amount=-5), {}, SchemaError, "amount: Input should be greater"),
        (Credited(customer="x" * 513, amount=5), {}, SchemaError, "the key has 513 characters"),
        (Credited(customer="ada", amount=5), {"id": "x" * 1_025}, DecodeError, "id"),
        ([Credited(customer="ada", amount=5)], {"id": "1"}, ConfigurationError, "id= names one event"),
    ],
)
async def test_a_wrong_event_is_refused_and_nothing_is_published(
    events: Headrace, event: Any, options: dict[str, Any], error: type[HeadraceError], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        await events.publish(event, **options)
    assert await envelopes(events, "credits") == []


async def test_one_wrong_event_of_a_list_keeps_all_back(events: Headrace) -> None:
    wrong = Credited.model_construct(customer="ada", amount=-5)
    with pytest.raises(SchemaError):
        await events.publish([Credited(customer="ada", amount=5), wrong])
    assert await envelopes(events, "credits") == []


async def test_without_a_running_platform_a_sentence_says_what_to_do(database_url: str) -> None:
    platform = service(settings_for(database_url))
    with pytest.raises(ConfigurationError, match=r"async with events\.client\(\) as publisher"):
        await platform.publish(Noted(text="x"))


class Hanging(MemoryLog):
    """A log that takes records and does not answer."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = asyncio.Event()

    async def publish(self, records: Any) -> list[Position]:
        await self.may_answer.wait()
        return await super().publish(records)


async def test_a_log_that_does_not_answer_is_an_unknown_outcome(database_url: str) -> None:
    settings = settings_for(database_url).model_copy(update={"ingest": IngestSettings(timeout_seconds=0.05)})
    platform, log = service(settings), Hanging()
    async with running(platform, log) as runtime:
        with pytest.raises(TransportError, match="whether it has the events is unknown"):
            await platform.publish(Credited(customer="ada", amount=5))
        log.may_answer.set()
        await until_settled(runtime, "totals")
        assert len(await envelopes(platform, "credits")) == 1


class Refusing(MemoryLog):
    """A log that refuses what says so."""

    async def publish(self, records: Any) -> list[Position]:
        for record in records:
            _refuse(record)
        return await super().publish(records)


def _refuse(record: NewRecord) -> None:
    if b"too large" in (record.value or b""):
        raise RecordTooLargeError("the event is too large.")
    if b"away" in (record.value or b""):
        raise TransportError("the log is away.")


async def test_a_route_publishes_and_what_it_lets_through_is_answered(database_url: str) -> None:
    platform = service(settings_for(database_url))
    app = application(platform)

    @app.post("/notes/{text}")
    async def note(text: str, publisher: Publisher) -> dict[str, Any]:
        published = await publisher.publish(Noted(text=text), key=text)
        return {"id": published.id, "position": published.position}

    async with running(platform, Refusing()), caller(app) as client:
        answer = await client.post("/notes/hello")
        assert answer.status_code == 200
        (envelope,) = await envelopes(platform, "notes")
        assert answer.json()["id"] == envelope.id
        assert (await client.post("/notes/too large")).status_code == 413
        assert (await client.post(f"/notes/{'x' * 513}")).status_code == 422
        answer = await client.post("/notes/away")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    async with caller(app) as client:
        assert (await client.post("/notes/late")).status_code == 503


async def test_a_script_publishes_without_a_server(tmp_path: Path) -> None:
    """What it has published is there for the service that starts afterwards, in the embedded log of the same folder."""
    settings = Settings(data_dir=tmp_path, partitions=3, management_port=0)
    async with service(settings).client() as publisher:
        published = await publisher.publish(Credited(customer="ada", amount=5))
        assert published.position.offset == 0
    platform = service(settings)
    async with running(platform) as runtime:
        await until_settled(runtime, "totals")
        assert await states(runtime, "totals", "total") == {"ada": {"amounts": [5]}}
        with pytest.raises(ConfigurationError, match="publish from that platform's own code, or over HTTP"):
            async with service(settings).client():
                pass
        async with platform.client() as publisher:  # in the same process it is the running one
            assert publisher is platform.publisher


async def test_a_script_on_the_memory_log_is_refused(database_url: str) -> None:
    with pytest.raises(ConfigurationError, match="HEADRACE_LOG=memory ends with the process"):
        async with service(settings_for(database_url)).client():
            pass
