"""Reads a request's body, bounded in size and in time.

A route reads its body itself, after its caller was admitted: FastAPI would read it before, whatever its size.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from headrace.http.pressure import SCOPE_KEY, Arrival
from headrace.http.problems import Problem, too_large
from headrace.settings import IngestSettings

StructT = TypeVar("StructT", bound=msgspec.Struct)

_CLOSE = {"Connection": "close"}
"""The rest of a slow body is not waited for. After a 413 it is: a client that still sends would not see the answer."""


async def read_body(
    request: Request, limits: IngestSettings, arrived: Callable[[int], None] = lambda size: None
) -> bytes:
    """Return the body; `arrived` is called with the size of each part, and may refuse it.

    Raises: Problem 413 as soon as the body is known to be too large, before the rest is read; Problem 408 if it has not
    come in time.
    """
    most = limits.max_body_bytes
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > most:
        raise too_large(f"the body has {declared} bytes; at most {most} are taken (HEADRACE_INGEST_MAX_BODY_BYTES).")
    arrival: Arrival | None = request.scope.get(SCOPE_KEY)
    if arrival is not None and arrival.is_whole:
        return await _read(request, most, arrived)  # it is there already, and a time limit costs 5 µs
    try:
        async with asyncio.timeout(limits.body_seconds):
            return await _read(request, most, arrived)
    except TimeoutError:
        detail = (
            f"the body did not come within {limits.body_seconds:g} s (HEADRACE_INGEST_BODY_SECONDS); send it again."
        )
        raise Problem(408, "request-timeout", "Request timeout", detail, headers=_CLOSE) from None


async def read_json(request: Request, limits: IngestSettings, model: type[StructT]) -> StructT:
    """Return the body as the model; an empty body is an empty object.

    Raises: Problem 422 (it is no JSON of the model; unknown members are refused, if the model says so), 408, 413.
    """
    body = await read_body(request, limits)
    try:
        return msgspec.json.decode(body or b"{}", type=model)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        detail = f"the body is not what this route takes: {error}."
        raise Problem(422, "parameters", "The request's parameters are wrong", detail) from None


def body_of(model: type[msgspec.Struct], *, required: bool) -> dict[str, Any]:
    """Return what OpenAPI says of a body that `read_json` reads."""
    (schema,), components = msgspec.json.schema_components([model], ref_template="#/$defs/{name}")
    inlined = _inlined(schema, components)
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": inlined}}}}


def _inlined(schema: Any, components: dict[str, Any]) -> Any:
    """Return the schema with what it refers to in place of the references."""
    if isinstance(schema, list):
        return [_inlined(part, components) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(components[schema["$ref"].removeprefix("#/$defs/")], components)
    return {name: _inlined(part, components) for name, part in schema.items()}


async def _read(request: Request, most: int, arrived: Callable[[int], None]) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > most:
            raise too_large(f"the body has over {most} bytes, the most that is taken (HEADRACE_INGEST_MAX_BODY_BYTES).")
        arrived(len(chunk))
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)
