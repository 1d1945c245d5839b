"""Reads a request's body, bounded in size and in time."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from headrace.http.problems import Problem, too_large
from headrace.settings import IngestSettings

_CLOSE = {"Connection": "close"}
"""The rest of a slow body is not waited for. After a 413 it is: a client that still sends would not see the answer."""


async def read_body(request: Request, limits: IngestSettings) -> bytes:
    """Return the body.

    Raises: Problem 413 as soon as the body is known to be too large, before the rest is read; Problem 408 if it has not
    come in time.
    """
    most = limits.max_body_bytes
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > most:
        raise too_large(f"the body has {declared} bytes; at most {most} are taken (HEADRACE_INGEST_MAX_BODY_BYTES).")
    try:
        async with asyncio.timeout(limits.body_seconds):
            return await _read(request, most)
    except TimeoutError:
        detail = (
            f"the body did not come within {limits.body_seconds:g} s (HEADRACE_INGEST_BODY_SECONDS); send it again."
        )
        raise Problem(408, "request-timeout", "Request timeout", detail, headers=_CLOSE) from None


async def _read(request: Request, most: int) -> bytes:
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
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)
