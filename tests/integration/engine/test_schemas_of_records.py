"""Records that name their schema, whatever the registry does; test_schema_registry.py has a real one."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import fastavro
import msgspec
import pytest
from pydantic import BaseModel

from headrace import Event, Headrace, State, Table
from headrace.log.memory import MemoryLog
from headrace.log.partitioner import partition_for
from headrace.log.ports import NewRecord, StoredRecord, TopicPartition
from headrace.rebuild.rebuild import rebuild
from headrace.rewind.rehearsal import Rehearsal
from headrace.runtime import Runtime
from headrace.settings import SchemaRegistrySettings
from tests.support.platform import (
    Notes,
    client,
    execute,
    fetch,
    pages,
    publish,
    sample,
    settings_for,
    until_settled,
    value,
    watched,
)
from tests.support.registry.small import SmallRegistry
from tests.support.waiting import until

NOTED: dict[str, Any] = {
    "type": "record",
    "name": "Noted",
    "namespace": "paper",
    "fields": [{"name": "page", "type": "string"}, {"name": "number", "type": "int"}],
}


LETTERS = """
select id, reason, error from headrace.dead_letter where subscription = 'notebook.notes' order by "offset"
"""
REGISTRY = {"subscription": "notes", "handler": "schema registry"}


@pytest.fixture
def registry() -> Iterator[SmallRegistry]:
    made = SmallRegistry()
    made.keep(1, NOTED)
    yield made
    made.stop()


class Count(BaseModel):
    id: str
    records: int = 0


class Service:
    """A notebook whose pages another team writes, on two partitions."""

    def __init__(self, database_url: str, topic: str, registry: SmallRegistry, patience_seconds: float = 0.3) -> None:
        asked = SchemaRegistrySettings(url=registry.url, timeout_seconds=1.0, patience_seconds=patience_seconds)
        settings = settings_for(database_url, partitions=2, retry_attempts=1_000)
        self.platform = Headrace("notebook", settings.model_copy(update={"schema_registry": asked}))
        self.topic = topic
        self.log = MemoryLog()
        self.is_broken = False
        self.calls = 0
        notes = self.platform.subscription("notes")

        class Noted(Event, type="noted", topic=topic, key="page"):
            page: str
            number: int

        @notes.on(Noted)
        def note(event: Noted, kept: State[Notes]) -> None:
            if self.is_broken:
                raise ValueError("not yet")
            self.calls += 1
            kept.numbers.append(event.number)

        @self.platform.projection("counts", Count, key="id").on(Noted)
        def count(event: Noted, rows: Table[Count]) -> None:
            rows.add(event.page, records=1)

        self.platform.decoder(topic, schemas={"paper.Noted": Noted, "paper.Torn": None})

    def written(self, page: str, number: int, *, schema: int = 1, by: dict[str, Any] = NOTED, **more: Any) -> NewRecord:
        """Return a record as Confluent's Avro serializer writes it."""
        data = io.BytesIO()
        fastavro.schemaless_writer(data, by, {"page": page, "number": number, **more})
        return NewRecord(self.topic, page.encode(), b"\0" + schema.to_bytes(4) + data.getvalue(), [])


@pytest.fixture
async def service(database_url: str, topic_name: str, registry: SmallRegistry) -> Service:
    made = Service(database_url, topic_name, registry)
    await made.log.create(topic_name, 2)
    return made


async def _outages(service: Service) -> list[dict[str, Any]]:
    async with client(service.platform) as http:
        found: list[dict[str, Any]] = (await http.get("/subscriptions/notes")).json()["outages"]
        return found


async def _letters(runtime: Runtime) -> list[tuple[str, str]]:
    rows = await fetch(runtime, LETTERS)
    return [(row["reason"], row["error"]) for row in rows]


async def test_schema_is_fetched_once_for_all_its_records(service: Service, registry: SmallRegistry) -> None:
    registry.start()
    async with watched(service.platform, service.log) as runtime:
        await publish(runtime, *(service.written(page, number) for number in range(50) for page in "abcdef"))
        await until_settled(runtime, "notes")
        await publish(runtime, *(service.written(page, 50) for page in "abcdef"))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {page: list(range(51)) for page in "abcdef"}
        assert registry.asked == ["/schemas/ids/1"]


async def test_registry_that_is_away_is_waited_for_and_told(service: Service, registry: SmallRegistry) -> None:
    async with watched(service.platform, service.log) as runtime:
        await publish(runtime, service.written("a", 1))
        await until(lambda: _outages(service), "the outage is told")
        (outage,) = await _outages(service)
        assert outage["handler"] == "schema registry"
        assert f"the schema registry {registry.url} cannot be reached" in outage["error"]
        await until(lambda: sample(runtime, "handler_outage", **REGISTRY) == 1, "the metric shows the outage")
        registry.start()
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1]}
        assert await _letters(runtime) == []
        await until(lambda: _is_over(service, runtime), "the end of the outage is told")


async def _is_over(service: Service, runtime: Runtime) -> bool:
    return await _outages(service) == [] and sample(runtime, "handler_outage", **REGISTRY) == 0


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ((401, {"error_code": 401}), "answers 401: set HEADRACE_SCHEMA_REGISTRY_USERNAME"),
        ((500, {"error_code": 50001}), "answers schemas/ids/1 with 500"),
        ((404, {"error_code": 404, "message": "HTTP 404 Not Found"}), "answers schemas/ids/1 with 404"),
        ((200, b"<html>welcome</html>"), "with 200 and no JSON: is this its address?"),
        ((200, {"hello": "world"}), "but not with a schema"),
    ],
)
async def test_registry_that_fails_costs_no_record(
    service: Service, registry: SmallRegistry, fault: tuple[int, Any], told: str
) -> None:
    registry.fault = fault
    registry.start()
    async with watched(service.platform, service.log) as runtime:
        await publish(runtime, service.written("a", 1))
        await until(lambda: _outages(service), "the outage is told")
        assert told in (await _outages(service))[0]["error"]
        registry.fault = None
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1]}


async def test_records_of_known_schemas_do_not_wait(service: Service, registry: SmallRegistry) -> None:
    """Only the partition whose record needs the registry waits for it."""
    first, second = (next(page for page in "abcdef" if partition_for(page.encode(), 2) == number) for number in (0, 1))
    registry.start()
    async with watched(service.platform, service.log) as runtime:
        await publish(runtime, service.written(first, 1), service.written(second, 1))
        await until_settled(runtime, "notes")
        registry.stop()
        await publish(runtime, service.written(first, 2, schema=2))
        await until(lambda: _outages(service), "the outage is told")
        await publish(runtime, service.written(second, 2))
        await until(lambda: _has(runtime, second, [1, 2]), "the other partition goes on")
        assert (await pages(runtime))[first] == [1]


async def _has(runtime: Runtime, page: str, numbers: list[int]) -> bool:
    return (await pages(runtime)).get(page) == numbers


async def test_stop_does_not_wait_for_the_registry(service: Service) -> None:
    async with watched(service.platform, service.log) as runtime:
        await publish(runtime, service.written("a", 1))
        await until(lambda: _outages(service), "the outage is told")
    assert runtime.is_clean


async def test_registry_that_is_behind_is_waited_for(
    database_url: str, topic_name: str, registry: SmallRegistry
) -> None:
    service = Service(database_url, topic_name, registry, patience_seconds=60)
    await service.log.create(topic_name, 2)
    registry.start()
    async with watched(service.platform, service.log) as runtime:
        await publish(runtime, service.written("a", 1, schema=7))
        await until(lambda: _outages(service), "it is told that the registry lacks the schema")
        assert "does not have schema 7 yet" in (await _outages(service))[0]["error"]
        registry.keep(7, NOTED)
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1]}
        assert await _letters(runtime) == []


async def test_schema_that_never_comes_is_a_dead_letter(service: Service, registry: SmallRegistry) -> None:
    """The partition waits once, for all of them; what the registry has later is replayed."""
    registry.start()
    async with watched(service.platform, service.log) as runtime:
        wrong = [service.written("a", number, schema=100 + number) for number in range(40)]
        await publish(runtime, *wrong, service.written("a", 1))
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1]}
        letters = await _letters(runtime)
        assert {reason for reason, _ in letters} == {"decode"}
        assert letters[39][1] == ("the schema registry has no schema 139; if it has it later, replay the dead letter.")


async def test_replayed_record_is_read_when_its_schema_is_there(
    database_url: str, topic_name: str, registry: SmallRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.schema_registry.schemas.REFUSED_SECONDS", 0.1)
    service = Service(database_url, topic_name, registry, patience_seconds=0)
    await service.log.create(topic_name, 2)
    registry.start()
    async with watched(service.platform, service.log) as runtime:
        await publish(runtime, service.written("a", 1, schema=9))
        await until(lambda: _letters(runtime), "the record is a dead letter")
        registry.keep(9, NOTED)
        async with client(service.platform) as http:
            await http.post("/dead-letters/replay", json={"where": {}})
        await until(lambda: _has(runtime, "a", [1]), "the replay is applied")


async def test_bytes_that_do_not_fit_are_dead_letters(service: Service, registry: SmallRegistry) -> None:
    refund = NOTED | {"name": "Refunded"}
    torn = NOTED | {"name": "Torn"}
    text = NOTED | {"fields": [*NOTED["fields"][:1], {"name": "number", "type": "string"}]}
    registry.keep(2, refund)
    registry.keep(3, torn)
    registry.keep(4, "{")
    registry.keep(5, text)
    registry.keep(6, "package p", "THRIFT")
    registry.start()
    ends = service.written("a", 1)
    async with watched(service.platform, service.log) as runtime:
        await publish(
            runtime,
            msgspec.structs.replace(ends, value=b"{}"),
            msgspec.structs.replace(ends, value=b"\0\xff\xff\xff\xff none"),
            msgspec.structs.replace(ends, value=(ends.value or b"")[:-1]),
            msgspec.structs.replace(ends, value=(ends.value or b"") + b"more"),
            service.written("a", 2, schema=2),
            service.written("a", 3, schema=3),
            service.written("a", 4, schema=4),
            service.written("a", "five", schema=5, by=text),  # type: ignore[arg-type]
            service.written("a", 6, schema=6),
            msgspec.structs.replace(ends, value=None),
            service.written("a", 7),
        )
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [7]}
        letters = await _letters(runtime)
        assert [reason for reason, _ in letters] == [
            "decode", "decode", "decode", "decode", "unknown_type", "decode", "schema", "decode",
        ]  # fmt: skip
        told = [error for _, error in letters]
        assert "names no schema: its value (2 bytes) does not begin with byte 0" in told[0]
        assert "names no schema" in told[1]
        assert "the record's bytes are not of its schema 1: EOFError" in told[2]
        assert "4 bytes are left behind the record" in told[3]
        assert "the record is a 'paper.Refunded' (schema 2), which the decoder" in told[4]
        assert "the schema 4 of the registry cannot be used: it is no Avro schema" in told[5]
        assert "noted: number: Input should be a valid integer" in told[6]
        assert "its format is THRIFT, and Headrace reads AVRO, PROTOBUF, JSON." in told[7]
        assert sample(runtime, "events_skipped_total", subscription="notes", reason="unhandled") == 2


async def test_older_and_newer_schemas_are_read_by_one_class(service: Service, registry: SmallRegistry) -> None:
    newer = NOTED | {"fields": [{"name": "colour", "type": "string"}, *NOTED["fields"]]}
    older = NOTED | {"fields": NOTED["fields"][:1]}
    registry.keep(2, newer)
    registry.keep(3, older)
    registry.start()
    async with watched(service.platform, service.log) as runtime:
        await publish(
            runtime,
            service.written("a", 1),
            service.written("a", 2, schema=2, by=newer, colour="red"),
            service.written("a", 3, schema=3, by=older),
        )
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1, 2]}
        assert [(reason, "number: Field required" in error) for reason, error in await _letters(runtime)] == [
            ("schema", True)
        ]


async def test_parked_records_wait_for_the_registry_as_well(
    database_url: str, topic_name: str, registry: SmallRegistry
) -> None:
    """A process that has started anew knows no schema: its lanes use up no attempt meanwhile."""
    first = Service(database_url, topic_name, registry)
    await first.log.create(topic_name, 2)
    first.is_broken = True
    registry.start()
    async with watched(first.platform, first.log) as runtime:
        await publish(runtime, first.written("a", 1), first.written("a", 2))
        await until(lambda: value(runtime, "select count(*) = 2 from headrace.parked"), "both are parked")
    registry.stop()
    second = Service(database_url, topic_name, registry)
    async with watched(second.platform, first.log) as runtime:
        await until(lambda: _outages(second), "the lanes wait")
        attempts = await value(runtime, "select attempts from headrace.lane")
        await until(lambda: len(registry.asked) >= 1, "the registry was asked")
        registry.start()
        await until_settled(runtime, "notes")
        assert await pages(runtime) == {"a": [1, 2]}
        assert second.calls == 2
        assert attempts < 1_000


async def test_edit_of_a_dead_letter_fetches_the_schema(
    service: Service, database_url: str, registry: SmallRegistry
) -> None:
    """In a process that has read no record yet; while the registry is away it is answered 503."""
    async with watched(service.platform, service.log) as runtime:
        await publish(runtime, msgspec.structs.replace(service.written("a", 1), value=b"wrong"))
        await until_settled(runtime, "notes")
        (identity,) = (row["id"] for row in await fetch(runtime, LETTERS))
    mended = base64.b64encode(service.written("a", 1).value or b"").decode()
    another = Service(database_url, service.topic, registry)
    async with watched(another.platform, service.log) as runtime, client(another.platform) as http:
        edit = f"/dead-letters/{identity}/edit"
        answer = await http.post(edit, json={"value_base64": mended})
        assert answer.status_code == 503, answer.text
        assert "cannot be reached" in answer.json()["detail"]
        registry.start()
        answer = await http.post(edit, json={"value_base64": mended})
        assert answer.status_code == 200, answer.text
        await http.post(f"/dead-letters/{identity}/replay")
        await until(lambda: _has(runtime, "a", [1]), "the mended record is applied")


async def test_rebuild_fetches_the_schemas(service: Service, database_url: str, registry: SmallRegistry) -> None:
    """As a process of its own does, which has applied nothing."""
    registry.start()
    async with watched(service.platform, service.log) as runtime:
        await publish(runtime, service.written("a", 1), service.written("a", 2))
        await until_settled(runtime, "notes", "counts")
        await execute(database_url, "update projections.counts set records = 100")
        another = Service(database_url, service.topic, registry).platform
        another.registry.complete()
        async with runtime.pool.acquire() as connection:  # type: ignore[union-attr]
            counts = another.registry.projections["counts"]
            await rebuild(connection, service.log, another.registry, counts, another.settings, lambda *_: None)
        assert await value(runtime, "select records from projections.counts") == 2
    assert registry.asked == ["/schemas/ids/1"] * 2


async def test_rehearsal_fetches_the_schemas(service: Service, registry: SmallRegistry) -> None:
    """That of a rewind, or of a dry run."""
    registry.start()
    partition = TopicPartition(service.topic, 0)
    records = [
        StoredRecord(*partition, number, 0, each.key, each.value, [])
        for number, each in enumerate([service.written("a", 1), service.written("b", 2)])
    ]
    platform = service.platform
    platform.registry.complete()
    for run in ("keys", "run"):
        rehearsal = Rehearsal(platform.registry, platform.registry.subscriptions["notes"], platform.settings)
        items = await rehearsal.keys(records) if run == "keys" else (await rehearsal.run(partition, records)).items
        rehearsal.close()
        assert [item.key for item in items] == ["a", "b"]
        platform._schemas._readers.clear()
    assert registry.asked == ["/schemas/ids/1"] * 2
