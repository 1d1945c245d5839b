"""Records of Confluent's own serializers, with a real schema registry and a real Kafka, applied exactly once."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from pydantic import BaseModel

from headrace import Event, Headrace, State
from headrace.log.ports import NewRecord, Record
from headrace.settings import SchemaRegistrySettings
from tests.support.kafka import KafkaServer
from tests.support.platform import running, settings_for, states, until_settled
from tests.support.producing import produce
from tests.support.registry import RegistryServer

MADE = {
    "type": "record",
    "name": "PaymentMade",
    "namespace": "bank",
    "fields": [
        {"name": "account", "type": "string"},
        {"name": "cents", "type": "long"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ],
}
REFUNDED = MADE | {"name": "PaymentRefunded"}


SUM = 'syntax = "proto3"; package money; message Sum { int64 cents = 1; string currency = 2; }'
PAYMENT = """
syntax = "proto3";
package bank;
import "sum.proto";
import "google/protobuf/timestamp.proto";
message Unused { string text = 1; }
message Payments {
  message Made { string account = 1; money.Sum sum = 2; google.protobuf.Timestamp at = 3; }
}
"""


class Payment(Event):
    account: str
    cents: int
    at: datetime | None = None


class Balance(BaseModel):
    cents: int = 0
    applied: int = 0
    latest: str = ""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def registry() -> AsyncIterator[RegistryServer]:
    server = RegistryServer()
    try:
        await server.start()
        yield server
    finally:
        await server.stop()


@pytest.fixture
def known(registry: RegistryServer) -> Iterator[SchemaRegistryClient]:
    with SchemaRegistryClient({"url": registry.url}) as client:
        yield client


class Bank:
    """A service that keeps the balances of accounts that other teams write about."""

    def __init__(self, database_url: str, kafka: KafkaServer, registry: RegistryServer, topic: str) -> None:
        settings = settings_for(database_url, kafka.url, partitions=3)
        asked = SchemaRegistrySettings(url=registry.url)
        self.topic = topic
        self.platform = Headrace(f"bank-{uuid4().hex[:8]}", settings.model_copy(update={"schema_registry": asked}))
        balances = self.platform.subscription("balances")

        class Made(Payment, type="payment.made", topic=topic, key="account"): ...

        class Refunded(Payment, type="payment.refunded", topic=topic, key="account"): ...

        self.made, self.refunded = Made, Refunded

        @balances.on(Made)
        def take(event: Made, balance: State[Balance]) -> None:
            balance.cents += event.cents
            balance.applied += 1
            balance.latest = event.at.isoformat() if event.at is not None else ""

        @balances.on(Refunded)
        def give_back(event: Refunded, balance: State[Balance]) -> None:
            balance.cents -= event.cents
            balance.applied += 1

    async def balances(self) -> dict[str, dict[str, Any]]:
        assert self.platform.runtime is not None
        return await states(self.platform.runtime, "balances", "balance")


@pytest_asyncio.fixture
async def bank(database_url: str, kafka: KafkaServer, registry: RegistryServer, topic_name: str) -> Bank:
    await kafka.create_topic(topic_name, partitions=3)
    return Bank(database_url, kafka, registry, topic_name)


async def test_avro_records_are_applied_exactly_once(
    bank: Bank, known: SchemaRegistryClient, kafka: KafkaServer
) -> None:
    """Over two runs of the service, with two types of record on the topic, and a third that nobody wants."""
    unwanted = MADE | {"name": "PaymentSeen"}
    takers = {"bank.PaymentMade": bank.made, "bank.PaymentRefunded": bank.refunded, "bank.PaymentSeen": None}
    bank.platform.decoder(bank.topic, schemas=takers)
    options = {"subject.name.strategy": _name_of_record}
    made, refunded, seen = (
        AvroSerializer(known, json.dumps(schema), conf=options) for schema in (MADE, REFUNDED, unwanted)
    )
    at = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
    accounts = [f"account-{number}" for number in range(20)]

    def written(serializer: Any, account: str, cents: int) -> NewRecord:
        value = {"account": account, "cents": cents, "at": at}
        return NewRecord(bank.topic, account.encode(), serializer(value, _context(bank)), [])

    first = [written(made, account, 10) for account in accounts for _ in range(25)]
    first += [written(seen, account, 1_000_000) for account in accounts]
    second = [written(refunded, account, 4) for account in accounts for _ in range(25)]
    await produce(kafka.bootstrap, first)
    async with running(bank.platform) as runtime:
        await until_settled(runtime, "balances")
        await produce(kafka.bootstrap, second[:200])
    await produce(kafka.bootstrap, second[200:])
    async with running(bank.platform) as runtime:
        await until_settled(runtime, "balances")
        expected = {"cents": 150, "applied": 50, "latest": at.isoformat()}
        assert await bank.balances() == dict.fromkeys(accounts, expected)


async def test_protobuf_records_are_read_with_their_imports(
    bank: Bank, known: SchemaRegistryClient, kafka: KafkaServer, tmp_path: Path
) -> None:
    """The message is within the second of its file, and its sum is a message of another file."""
    (tmp_path / "sum.proto").write_text(SUM)
    (tmp_path / "payment.proto").write_text(PAYMENT)
    made = _message_class(tmp_path, "payment.proto", "bank.Payments.Made")
    serializer = ProtobufSerializer(made, known, {"use.deprecated.format": False})

    def read(record: Record, value: Any) -> Event:
        return bank.made(account=value["account"], cents=value["sum"]["cents"], at=value["at"])

    bank.platform.decoder(bank.topic, schemas={"bank.Payments.Made": read})
    message = made(account="a", sum={"cents": 150, "currency": "EUR"}, at={"seconds": 10})
    value = await asyncio.to_thread(serializer, message, _context(bank))
    await produce(kafka.bootstrap, [NewRecord(bank.topic, b"a", value, [])] * 3)
    async with running(bank.platform) as runtime:
        await until_settled(runtime, "balances")
        assert await bank.balances() == {"a": {"cents": 450, "applied": 3, "latest": "1970-01-01T00:00:10+00:00"}}


async def test_protobuf_schema_is_compiled_from_its_text(
    bank: Bank, known: SchemaRegistryClient, kafka: KafkaServer
) -> None:
    """As serializers of other languages register it; the record is written by hand."""
    bank.platform.decoder(bank.topic, schemas={"bank.Made": bank.made})
    text = 'syntax = "proto3"; package bank; message Made { string account = 1; int64 cents = 2; }'
    number = await asyncio.to_thread(known.register_schema, f"{bank.topic}-value", Schema(text, "PROTOBUF"))
    value = b"\0" + number.to_bytes(4) + b"\0" + b"\x0a\x01a" + b"\x10\x96\x01"
    await produce(kafka.bootstrap, [NewRecord(bank.topic, b"a", value, [])])
    async with running(bank.platform) as runtime:
        await until_settled(runtime, "balances")
        assert await bank.balances() == {"a": {"cents": 150, "applied": 1, "latest": ""}}


async def test_json_records_are_read_by_the_title(bank: Bank, known: SchemaRegistryClient, kafka: KafkaServer) -> None:
    schema = {"title": "PaymentMade", "type": "object", "properties": {"account": {"type": "string"}}}
    bank.platform.decoder(bank.topic, schemas={"PaymentMade": bank.made})
    written = JSONSerializer(json.dumps(schema), known)({"account": "a", "cents": 7}, _context(bank))
    await produce(kafka.bootstrap, [NewRecord(bank.topic, b"a", written, [])])
    async with running(bank.platform) as runtime:
        await until_settled(runtime, "balances")
        assert (await bank.balances())["a"]["cents"] == 7


async def test_schema_that_evolves_is_read_at_every_version(
    bank: Bank, known: SchemaRegistryClient, kafka: KafkaServer
) -> None:
    bank.platform.decoder(bank.topic, schemas={"bank.PaymentMade": bank.made})
    older = MADE | {"fields": MADE["fields"][:2]}
    newer = MADE | {"fields": [{"name": "note", "type": "string", "default": ""}, *MADE["fields"]]}
    at = datetime(2026, 1, 2, tzinfo=UTC)
    value = {"account": "a", "cents": 1, "at": at, "note": "for the mill"}
    records = []
    for schema in (older, MADE, newer):
        serializer = AvroSerializer(known, json.dumps(schema))
        fields = {field["name"] for field in schema["fields"]}  # type: ignore[index]
        data = await asyncio.to_thread(serializer, {k: v for k, v in value.items() if k in fields}, _context(bank))
        records.append(NewRecord(bank.topic, b"a", data, []))
    assert len({record.value[:5] for record in records if record.value}) == 3
    await produce(kafka.bootstrap, records)
    async with running(bank.platform) as runtime:
        await until_settled(runtime, "balances")
        assert await bank.balances() == {"a": {"cents": 3, "applied": 3, "latest": at.isoformat()}}


def _context(bank: Bank) -> SerializationContext:
    return SerializationContext(bank.topic, MessageField.VALUE)


def _name_of_record(context: SerializationContext, name: str | None) -> str | None:
    return name


def _message_class(folder: Path, file: str, name: str) -> Any:
    """Return the class of a message, as a producer's generated code has it."""
    command = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={folder}", "--include_imports"]
    subprocess.run([*command, f"--descriptor_set_out={folder / 'set'}", file], check=True)
    pool = descriptor_pool.DescriptorPool()
    for each in descriptor_pb2.FileDescriptorSet.FromString((folder / "set").read_bytes()).file:
        pool.AddSerializedFile(each.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
