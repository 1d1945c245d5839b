"""What reads the bytes of a schema, whichever format it is of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from headrace.errors import DecodeError
from headrace.schema_registry.avro import avro_reader
from headrace.schema_registry.protobuf import protobuf_reader
from headrace.schema_registry.registered import Registered

Reader: TypeAlias = Callable[[bytes], tuple[str, Any]]
"""Bytes behind a frame -> full name of the record, message or title, and the value as JSON has it.

Raises: DecodeError, and what the format's library raises of bytes that are not of the schema.
"""


async def new_reader(schema: Registered) -> Reader:
    """Return what reads records of the schema; made in a thread. Raises: DecodeError (the schema is wrong)."""
    make = _MAKERS.get(schema.kind)
    if make is None:
        raise DecodeError(f"its format is {schema.kind}, and Headrace reads {', '.join(_MAKERS)}.")
    return await asyncio.to_thread(make, schema)


def json_reader(title: str) -> Reader:
    """Return what reads JSON of a schema with this title."""
    decode = msgspec.json.Decoder().decode
    return lambda data: (title, decode(data))


def _titled_reader(schema: Registered) -> Reader:
    try:
        return json_reader(str(msgspec.json.decode(schema.text).get("title", "")))
    except (msgspec.DecodeError, AttributeError) as error:
        raise DecodeError(f"it is no JSON Schema with a title: {error}") from error


_MAKERS: dict[str, Callable[[Registered], Reader]] = {
    "AVRO": avro_reader,
    "PROTOBUF": protobuf_reader,
    "JSON": _titled_reader,
}
