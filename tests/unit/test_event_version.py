"""A version above 1 travels as `dataschema`; an event of a version that the class does not know is refused."""

from __future__ import annotations

import json

import msgspec
import pytest

from headrace import Event, event
from headrace.cloudevents import ParsedEvent, decode_record
from headrace.emits.emitter import Emitter
from headrace.engine.decode import BatchDecoder
from headrace.envelope import Envelope
from headrace.errors import ConfigurationError, SchemaError
from headrace.event import event_type_of
from headrace.http.asyncapi import build_asyncapi
from headrace.http.problems import Problem
from headrace.ingest.checking import check_all
from headrace.item import Item, Outcome
from headrace.log.ports import Record, StoredRecord
from headrace.registry import Registry
from headrace.telemetry.tracing import Tracing


class Opened(Event, type="door.opened", topic="doors", key="door"):
    door: str


class Closed(Event, type="door.closed", topic="doors", key="door", version=2):
    door: str


@event(type="door.locked", topic="doors", version=3)
class Locked(msgspec.Struct):
    door: str


TYPES = {each.type: each for each in map(event_type_of, (Opened, Closed, Locked)) if each is not None}
CLOSED = TYPES["door.closed"]


def begin(emit: Emitter, item: Item) -> None:
    """What follows is emitted by the handler of this item."""
    emit.cause, emit.position = item, 0


def record(dataschema: str | None = None, type: str = "door.closed") -> Record:
    """Return the record of one event."""
    headers = [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"/s"), ("ce_type", type.encode())]
    if dataschema is not None:
        headers.append(("ce_dataschema", dataschema.encode()))
    return StoredRecord("doors", 0, 0, 0, b"a", json.dumps({"door": "a"}).encode(), tuple(headers))


def envelope(dataschema: str | None = None) -> Envelope:
    """Return the envelope of one event."""
    return Envelope(id="1", source="/s", type="door.closed", dataschema=dataschema)


def test_version_is_written_as_the_dataschema() -> None:
    assert {each.type: each.dataschema for each in TYPES.values()} == {
        "door.opened": None,
        "door.closed": "door.closed/v2",
        "door.locked": "door.locked/v3",
    }
    emit = Emitter("house", "doors", TYPES, 10_000)
    item = Item(record())
    item.known_envelope = envelope()
    begin(emit, item)
    emit(Closed(door="a"))
    assert decode_record(emit.emitted[0][1])[0].dataschema == "door.closed/v2"


async def test_accepted_event_gets_the_version_it_was_checked_by() -> None:
    parsed = [ParsedEvent(envelope(), b'{"door": "a"}'), ParsedEvent(envelope("door.closed/v1"), b'{"door": "a"}')]
    entries = await check_all(parsed, TYPES, Tracing().ingest("/events", {}), "structured")
    assert [entry.envelope.dataschema for entry in entries] == ["door.closed/v2", "door.closed/v1"]
    with pytest.raises(Problem) as refused:
        await check_all(
            [ParsedEvent(envelope("door.closed/v3"), b"{}")], TYPES, Tracing().ingest("/events", {}), "structured"
        )
    assert refused.value.status_code == 422


@pytest.mark.parametrize(
    "dataschema",
    [
        None,
        "door.closed/v1",
        "door.closed/v2",
        "door.closed/v02",
        "door.opened/v3",
        "https://schemas.example.com/closed.json",
        "door.closed/vx",
        "door.closed/v\u0663",
        "/v3",
        "my-door.closed/v3",
    ],
)
def test_known_version_and_foreign_schema_are_read(dataschema: str | None) -> None:
    assert read(record(dataschema)).outcome is Outcome.READY


@pytest.mark.parametrize(
    "dataschema", ["door.closed/v3", "https://example.com/types/door.closed/v3", f"door.closed/v{'9' * 1_000}"]
)
def test_newer_version_is_a_dead_letter_with_a_sentence(dataschema: str) -> None:
    item = read(record(dataschema))
    assert item.outcome is Outcome.SCHEMA
    assert isinstance(item.error, SchemaError)
    assert "and this service knows version 2; deploy the class of that version, then replay" in str(item.error)
    assert len(str(item.error)) < 200


def test_version_of_a_type_with_slashes_is_read() -> None:
    class Moved(Event, type="com/example/moved", topic="doors", version=3):
        door: str

    moved = event_type_of(Moved)
    assert moved is not None and moved.version_of("https://schemas.example/com/example/moved/v2") == 2
    with pytest.raises(SchemaError, match="the event has version 4 and this service knows version 3"):
        moved.check_version("com/example/moved/v4")


def test_version_is_shown_in_the_asyncapi_document() -> None:
    messages = build_asyncapi(registry(), "/events")["components"]["messages"]
    assert messages["door.closed"]["payload"]["properties"]["dataschema"] == {"const": "door.closed/v2"}
    assert "dataschema" not in messages["door.opened"]["payload"]["properties"]


@pytest.mark.parametrize("version", [0, -1, True, "2", 1.5])
def test_version_is_a_whole_number_from_one(version: object) -> None:
    with pytest.raises(ConfigurationError, match=r"Thing: version=.* must be an integer from 1 on"):
        type("Thing", (Event,), {}, type="thing", topic="things", version=version)


def test_envelope_tells_a_handler_the_version() -> None:
    assert decode_record(record("door.closed/v2"))[0].dataschema == "door.closed/v2"


def registry() -> Registry:
    """Return a service that handles closed doors."""
    made = Registry("house")
    for model in (Opened, Closed, Locked):
        made.add_type(model)

    @made.add_subscription("doors", "earliest").on(Closed)
    def note(event: Closed) -> None: ...

    return made


def read(record: Record) -> Item:
    """Return what the record is read as."""
    made = registry()
    (item,) = BatchDecoder(made.subscriptions["doors"], made.types, {}).decode([record], {})
    return item
