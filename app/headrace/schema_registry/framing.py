"""The frame of Confluent's serializers: which schema a record was written with, and where its bytes begin."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias
from uuid import UUID

from headrace.errors import DecodeError
from headrace.log.ports import Record

SchemaId: TypeAlias = int | UUID
"""What names a schema in its registry: a number, or in newer serializers a UUID."""

HEADER = "__value_schema_id"
"""The header in which newer serializers write the frame, instead of before the value."""

NUMBERED, UNIQUE = 0, 1
"""The first byte of a frame: four bytes follow, or, in the header only, sixteen."""

LARGEST = 0x7FFF_FFFF
"""Registries count in signed integers."""


class Framed(NamedTuple):
    """A record's value without its frame."""

    schema: SchemaId
    data: bytes
    """What the schema says how to read; of Protobuf, first which message it is."""


def unframe(record: Record, value: bytes) -> Framed:
    """Return the schema's id and what follows it. Raises: DecodeError (there is no frame)."""
    for name, frame in record.headers:
        if name == HEADER and frame is not None:
            if frame[:1] == bytes([UNIQUE]) and len(frame) >= 17:
                return Framed(UUID(bytes=frame[1:17]), frame[17:] + value)
            schema, rest = _numbered(frame, f"its header {HEADER}")
            return Framed(schema, rest + value)
    return Framed(*_numbered(value, "its value"))


def frame(schema: int, data: bytes) -> bytes:
    """Return the value of a record that was written with a schema."""
    return bytes([NUMBERED]) + schema.to_bytes(4) + data


def _numbered(frame: bytes, where: str) -> tuple[int, bytes]:
    if len(frame) >= 5 and frame[0] == NUMBERED and (schema := int.from_bytes(frame[1:5])) <= LARGEST:
        return schema, frame[5:]
    raise DecodeError(
        f"the record names no schema: {where} ({len(frame)} bytes) does not begin with byte 0 and a schema's id, as "
        "serializers of a schema registry write it."
    )


def zigzag(data: bytes, at: int) -> tuple[int, int]:
    """Return the variable-length integer at a place, and the place behind it. Raises: DecodeError (it does not end)."""
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
        shift += 7
    raise DecodeError("the record ends within a number.")
