"""Which schema a record names, and where its bytes begin."""

from __future__ import annotations

from uuid import UUID

import pytest

from headrace.errors import DecodeError
from headrace.log.ports import StoredRecord
from headrace.schema_registry.framing import HEADER, unframe, zigzag


def _record(value: bytes, *headers: tuple[str, bytes | None]) -> StoredRecord:
    return StoredRecord("payments", 0, 0, 0, None, value, headers)


def test_number_stands_before_the_value() -> None:
    assert unframe(_record(b""), b"\x00\x00\x00\x01\x02rest") == (258, b"rest")


def test_header_names_the_schema_instead() -> None:
    """As Confluent's HeaderSchemaIdSerializer writes it; of Protobuf the message's place follows in the header."""
    unique = UUID("89791762-2336-4186-9674-299b90a802e2")
    framed = unframe(_record(b"", (HEADER, b"\x01" + unique.bytes + b"\x00")), b"\x00value")
    assert framed == (unique, b"\x00\x00value")
    assert unframe(_record(b"", ("other", b"\x01"), (HEADER, b"\x00\x00\x00\x00\x07")), b"value") == (7, b"value")


@pytest.mark.parametrize(
    "value", [b"", b"\x00", b"\x00\x00\x00\x01", b"{}", b"\x01" + bytes(16), b"\x00\xff\xff\xff\xff"]
)
def test_other_bytes_name_no_schema(value: bytes) -> None:
    with pytest.raises(DecodeError, match=f"names no schema: its value .{len(value)} bytes. does not begin with"):
        unframe(_record(value), value)


def test_broken_header_names_no_schema() -> None:
    with pytest.raises(DecodeError, match="names no schema: its header __value_schema_id"):
        unframe(_record(b"", (HEADER, b"\x01short")), b"value")


@pytest.mark.parametrize(("data", "number"), [(b"\x00", 0), (b"\x01", -1), (b"\x02", 1), (b"\xac\x02", 150)])
def test_numbers_are_zigzag(data: bytes, number: int) -> None:
    assert zigzag(data, 0) == (number, len(data))


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x80" * 20])
def test_number_has_to_end(data: bytes) -> None:
    with pytest.raises(DecodeError, match="ends within a number"):
        zigzag(data, 0)
