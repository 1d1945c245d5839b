"""Reads Avro's bytes with the schema that they were written with."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import msgspec

from headrace.errors import DecodeError
from headrace.schema_registry.framing import zigzag
from headrace.schema_registry.registered import Registered


def avro_reader(schema: Registered) -> Callable[[bytes], tuple[str, Any]]:
    """Return what reads bytes as (full name of the record, its value). Raises: DecodeError (the schema is wrong)."""
    import fastavro

    named: dict[str, Any] = {}
    try:
        for text in schema.references.values():
            fastavro.parse_schema(msgspec.json.decode(text), named_schemas=named)
        parsed = fastavro.parse_schema(msgspec.json.decode(schema.text), named_schemas=named)
    except Exception as error:  # of fastavro's own classes, and whatever else a text that is no schema leads to
        raise DecodeError(f"it is no Avro schema: {type(error).__name__}: {error}") from error
    branches = [_branch(each, named) for each in (parsed if isinstance(parsed, list) else [parsed])]
    is_union, read = isinstance(parsed, list), fastavro.schemaless_reader

    def decode(data: bytes) -> tuple[str, Any]:
        index, at = zigzag(data, 0) if is_union else (0, 0)
        if not 0 <= index < len(branches):
            raise DecodeError(f"the record is number {index} of a union of {len(branches)}.")
        name, branch = branches[index]
        stream = BytesIO(data)
        stream.seek(at)
        value = read(stream, branch, None)
        if (rest := len(data) - stream.tell()) > 0:
            raise DecodeError(f"{rest} bytes are left behind the record.")
        return name, value

    return decode


def _branch(schema: Any, named: dict[str, Any]) -> tuple[str, Any]:
    """Return the name of a schema that is written out, or named, and the schema."""
    if isinstance(schema, str):
        return schema, named.get(schema, schema)
    return str(schema.get("name", schema.get("type"))), schema
