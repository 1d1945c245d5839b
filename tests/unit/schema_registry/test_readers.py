"""What the formats' bytes become: values that JSON has, under the full name of the record or message."""

from __future__ import annotations

import io
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import fastavro
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from headrace.errors import DecodeError
from headrace.schema_registry.protobuf import _compile
from headrace.schema_registry.readers import new_reader
from headrace.schema_registry.registered import Registered

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def _avro(schema: object, value: Any) -> bytes:
    data = io.BytesIO()
    fastavro.schemaless_writer(data, schema, value)  # type: ignore[arg-type]
    return data.getvalue()


def _field(name: str, type_: object) -> dict[str, object]:
    return {"name": name, "type": type_}


async def test_avro_values_are_those_of_its_logical_types() -> None:
    decimal = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}
    schema = {
        "type": "record",
        "name": "bank.Made",
        "fields": [
            _field("sum", decimal),
            _field("at", {"type": "long", "logicalType": "timestamp-micros"}),
            _field("day", {"type": "int", "logicalType": "date"}),
            _field("id", {"type": "string", "logicalType": "uuid"}),
            _field("state", {"type": "enum", "name": "State", "symbols": ["OPEN", "DONE"]}),
            _field("note", ["null", "string"]),
            _field("tags", {"type": "map", "values": "int"}),
            _field("before", {"type": "array", "items": "State"}),
        ],
    }
    value = {
        "sum": Decimal("12.50"),
        "at": AT,
        "day": date(2026, 1, 2),
        "id": UUID(int=5),
        "state": "DONE",
        "note": None,
        "tags": {"a": 1},
        "before": ["OPEN"],
    }
    read = await new_reader(Registered("AVRO", json.dumps(schema)))
    assert read(_avro(schema, value)) == ("bank.Made", value)


async def test_avro_references_are_known_to_the_schema() -> None:
    money = {"type": "record", "name": "bank.Money", "fields": [_field("cents", "long")]}
    made = {"type": "record", "name": "bank.Made", "fields": [_field("sum", "bank.Money")]}
    read = await new_reader(Registered("AVRO", json.dumps(made), {"bank.Money": json.dumps(money)}))
    whole = made | {"fields": [_field("sum", money)]}
    assert read(_avro(whole, {"sum": {"cents": 5}})) == ("bank.Made", {"sum": {"cents": 5}})


async def test_avro_union_tells_which_record_it_is() -> None:
    """A topic of several types of record may have one schema for all of them."""
    made = {"type": "record", "name": "bank.Made", "fields": [_field("cents", "long")]}
    refunded = made | {"name": "bank.Refunded"}
    references = {"made": json.dumps(made), "refunded": json.dumps(refunded)}
    read = await new_reader(Registered("AVRO", '["bank.Made", "bank.Refunded"]', references))
    assert read(b"\x02" + _avro(refunded, {"cents": 5})) == ("bank.Refunded", {"cents": 5})
    with pytest.raises(DecodeError, match="number 2 of a union of 2"):
        read(b"\x04\x00")


@pytest.mark.parametrize("text", ["{", "5", '{"type": "record", "name": "A", "fields": [{"name": "b", "type": "C"}]}'])
async def test_avro_schema_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(DecodeError, match="it is no Avro schema"):
        await new_reader(Registered("AVRO", text))


PAYMENT = """
syntax = "proto3";
package bank;
import "google/protobuf/timestamp.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/wrappers.proto";
import "google/protobuf/struct.proto";
import "parts/money.proto";
enum State { OPEN = 0; DONE = 1; }
message First {}
message Second {
  message Inner {
    string account = 1;
    int64 cents = 2;
    optional int32 rest = 3;
    State state = 4;
    repeated State before = 5;
    map<string, parts.Money> sums = 6;
    google.protobuf.Timestamp at = 7;
    google.protobuf.Duration took = 8;
    google.protobuf.StringValue note = 9;
    google.protobuf.Struct more = 10;
    bytes seal = 11;
    oneof by { string card = 12; string cash = 13; }
    map<bool, int32> settled = 14;
    map<int64, string> notes = 15;
  }
}
"""
MONEY = 'syntax = "proto3"; package parts; message Money { int64 cents = 1; }'
SCHEMA = Registered("PROTOBUF", PAYMENT, {"parts/money.proto": MONEY})


def _message(name: str) -> Any:
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(_compile(SCHEMA)).file:
        pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


async def test_protobuf_fields_are_values() -> None:
    message = _message("bank.Second.Inner")(
        account="a",
        cents=2**40,
        state=1,
        before=[0, 7],
        sums={"net": {"cents": 5}},
        at={"seconds": int(AT.timestamp()), "nanos": 5_000},
        took={"seconds": 1, "nanos": 500_000_000},
        note={"value": "for the mill"},
        seal=b"\xff",
        cash="coins",
        settled={True: 1, False: 2},
        notes={7: "seven"},
    )
    message.more.update({"deep": [1, {"er": None}]})
    read = await new_reader(SCHEMA)
    assert read(b"\x04\x02\x00" + message.SerializeToString()) == (
        "bank.Second.Inner",
        {
            "account": "a",
            "cents": 2**40,
            "state": "DONE",
            "before": ["OPEN", 7],
            "sums": {"net": {"cents": 5}},
            "at": AT.replace(microsecond=5),
            "took": timedelta(seconds=1.5),
            "note": "for the mill",
            "more": {"deep": [1, {"er": None}]},
            "seal": b"\xff",
            "cash": "coins",
            "settled": {"true": 1, "false": 2},
            "notes": {7: "seven"},
        },
    )


async def test_protobuf_fields_that_are_missing_are_left_out() -> None:
    """Those that the format cannot tell from missing ones have the value that it gives them."""
    read = await new_reader(SCHEMA)
    inner = {"account": "", "cents": 0, "state": "OPEN", "before": [], "sums": {}, "seal": b""}
    inner |= {"settled": {}, "notes": {}}
    assert read(b"\x04\x02\x00") == ("bank.Second.Inner", inner)
    assert read(b"\x00") == ("bank.First", {})


async def test_protobuf_message_has_to_be_of_the_schema() -> None:
    read = await new_reader(SCHEMA)
    with pytest.raises(DecodeError, match=r"the schema has no message \[9\]"):
        read(b"\x02\x12")
    with pytest.raises(DecodeError, match="names its message with"):
        read(b"\xfe\xff\x03")


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        (Registered("PROTOBUF", PAYMENT), "parts/money.proto: File not found"),
        (Registered("PROTOBUF", "message {"), "protoc does not compile it"),
        (Registered("PROTOBUF", PAYMENT, {"../money.proto": MONEY}), "no name of a file to import"),
        (Registered("JSON", "[]"), "no JSON Schema with a title"),
    ],
)
async def test_schema_that_cannot_be_used_says_why(schema: Registered, told: str) -> None:
    with pytest.raises(DecodeError, match=told):
        await new_reader(schema)
