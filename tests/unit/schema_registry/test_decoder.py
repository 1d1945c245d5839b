"""How a decoder by schemas is declared, what it says of itself, and how a test goes without a registry."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from pydantic import Base64Bytes, BaseModel

from headrace import Event, Headrace, State
from headrace.cli.describe import describe_registry
from headrace.errors import ConfigurationError
from headrace.log.ports import Record, StoredRecord
from headrace.registry import check_schema_registry
from headrace.schema_registry.decoder import SchemaDecoder
from headrace.schema_registry.framing import frame
from headrace.settings import EngineSettings, SchemaRegistrySettings, Settings
from headrace.testing import Handlers, assert_exactly_once


class Made(Event, type="payment.made", topic="payments", key="account"):
    account: str
    cents: int


class Elsewhere(Event, type="payment.elsewhere", topic="elsewhere", key="account"):
    account: str


class Balance(BaseModel):
    cents: int = 0


def read_made(record: Record, value: dict[str, Any]) -> Made:
    return Made(account=value["who"], cents=value["much"])


def _bank(schemas: dict[str, Any]) -> Headrace:
    events = Headrace("bank", Settings())
    balances = events.subscription("balances")

    @balances.on(Made)
    def take(event: Made, balance: State[Balance]) -> None:
        balance.cents += event.cents

    events.decoder("payments", schemas=schemas)
    return events


@pytest.mark.parametrize(
    ("schemas", "told"),
    [
        ({}, "the decoder of topic 'payments' names no schema"),
        ({"bank.Made": Elsewhere}, "Elsewhere lives on topic 'elsewhere'; declare it with topic='payments'"),
        ({"bank.Made": Balance}, "is no event type; give a class that is declared as one, a function of"),
        ({"bank.Made": "Made"}, "'Made' is no event type"),
    ],
)
def test_wrong_declaration_says_what_to_write(schemas: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        _bank(schemas)


def test_topic_has_one_decoder() -> None:
    events = _bank({"bank.Made": Made})
    with pytest.raises(ConfigurationError, match="topic 'payments' has two decoders"):
        events.decoder("payments", schemas={"bank.Made": Made})


def test_decoder_needs_an_address_to_start() -> None:
    events = _bank({"bank.Made": Made})
    with pytest.raises(ConfigurationError, match=r"topic 'payments' has schemas=.*set HEADRACE_SCHEMA_REGISTRY_URL"):
        check_schema_registry(Settings(), events.registry)
    check_schema_registry(Settings(), Headrace("other").registry)
    named = Settings(schema_registry=SchemaRegistrySettings(url="http://registry:8081"))
    check_schema_registry(named, events.registry)


def test_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "fastavro" else find(name))
    with pytest.raises(ConfigurationError, match=r"needs fastavro, which is not installed: pip install .headrace.regi"):
        _bank({"bank.Made": Made})


def test_libraries_are_not_imported_with_the_platform() -> None:
    code = "import sys, headrace; sys.exit(bool({'fastavro', 'httpx', 'grpc_tools', 'avro'} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_description_shows_what_becomes_of_each_schema() -> None:
    events = _bank({"bank.Made": Made, "bank.Old": read_made, "bank.Seen": None})
    described = describe_registry(events.registry, EngineSettings())["decoders"]
    becomes = {"bank.Made": "payment.made", "bank.Old": "read_made", "bank.Seen": None}
    assert described == [{"topic": "payments", "decoder": "schema registry", "schemas": becomes}]


def test_handlers_are_tested_without_a_registry() -> None:
    events = _bank({"bank.Made": Made})
    with Handlers(events) as handlers:
        handlers.when(Made(account="a", cents=5))
        assert handlers.state(Balance, "a") == Balance(cents=5)
    assert_exactly_once(events, [Made(account=account, cents=number) for number in range(5) for account in "ab"])


def test_function_that_makes_events_is_tested_by_itself() -> None:
    with Handlers(_bank({"bank.Old": read_made})) as handlers, pytest.raises(ConfigurationError, match="test the func"):
        handlers.when(Made(account="a", cents=5))


def test_class_gets_the_values_of_the_formats() -> None:
    """As the table of docs/guide/schema-registry.md has them, by the same way of JSON as every other event."""

    class Kind(Enum):
        OPEN = "OPEN"

    class Whole(Event, type="whole", topic="wholes"):
        amount: Decimal
        id: UUID
        day: date
        at: datetime
        took: timedelta
        kind: Kind
        seal: Base64Bytes
        counts: dict[str, int]
        note: str | None = None

    events = Headrace("bank", Settings())
    decoder = SchemaDecoder("wholes", {"bank.Whole": Whole}, events._schemas)
    value: dict[str, Any] = {
        "amount": Decimal("1.50"),
        "id": UUID(int=1),
        "day": date(2026, 1, 2),
        "at": datetime(2026, 1, 2, tzinfo=UTC),
        "took": timedelta(seconds=1.5),
        "kind": "OPEN",
        "seal": b"\xff\x00",
        "counts": {"a": 1},
    }
    number = events._schemas.learn("bank.Whole")
    events._schemas._readers[number] = lambda data: ("bank.Whole", value)
    event = decoder(StoredRecord("wholes", 0, 0, 0, None, frame(number, b""), []))
    assert event == Whole.model_construct(**value | {"kind": Kind.OPEN}, note=None)
