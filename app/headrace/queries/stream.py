"""`GET /events/stream`: what comes into the log from now on, as server-sent events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import msgspec
from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from headrace.cloudevents import decode_record, encode_structured
from headrace.errors import ConfigurationError, DecodeError, TransportError
from headrace.ingest.dependencies import runtime_of
from headrace.ingest.documents import problem
from headrace.log.ports import Reader, Record, TopicPartition
from headrace.problems import Problem, not_found, unavailable
from headrace.queries.progress import in_time
from headrace.security.guard import require
from headrace.telemetry.logging import get_logger

if TYPE_CHECKING:
    from headrace.runtime import Runtime

logger = get_logger("headrace.stream")

FETCH_RECORDS = 500
FETCH_SECONDS = 0.5
FETCH_BYTES = 16 * 2**20
"""A fetch is never cancelled, so this is also how long a stream takes to notice that its reader left."""
HEARTBEAT_SECONDS = 15.0
"""Below the idle timeouts of common proxies (30 to 60 s)."""

_HEADERS = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]


class Filter(msgspec.Struct, frozen=True):
    """Which records a stream shows; empty means all."""

    topics: frozenset[str]
    types: frozenset[str]
    keys: frozenset[bytes]


def add_routes(router: APIRouter) -> None:
    """Add the route."""
    open_streams: set[EventStream] = set()

    @router.get(
        "/events/stream",
        summary="Follow events",
        dependencies=[Depends(require("read"))],
        responses={
            200: {
                "description": "Server-sent events, each with a CloudEvent as data.",
                "content": {"text/event-stream": {}},
            },
            404: problem("No such topic."),
            422: problem("Wrong parameters."),
            429: problem("Too many streams are open.", retry_after=True),
            503: problem("The log is away.", retry_after=True),
        },
    )
    async def get_stream(
        request: Request,
        topic: Annotated[list[str] | None, Query(description="Only these topics.")] = None,
        type: Annotated[list[str] | None, Query(description="Only these event types.")] = None,
        key: Annotated[list[str] | None, Query(description="Only these keys.")] = None,
    ) -> Response:
        """Send each event that comes into the log from now on; ids are topic/partition/offset."""
        runtime = runtime_of(request)
        limit = runtime.settings.ingest.max_streams
        if len(open_streams) >= limit:
            detail = f"{limit} streams are open (HEADRACE_INGEST_MAX_STREAMS); close one, or wait."
            raise Problem(429, "rate-limited", "Too many streams", detail, headers={"Retry-After": "5"})
        wanted = Filter(frozenset(topic or ()), frozenset(type or ()), frozenset(name.encode() for name in key or ()))
        stream = EventStream(runtime, wanted, open_streams.discard)
        open_streams.add(stream)
        try:
            await stream.open()
        except BaseException:
            open_streams.discard(stream)
            raise
        return stream


class EventStream(Response):
    """The answer of one open stream. Ends when its reader leaves, when the process drains, or when the log is away."""

    def __init__(self, runtime: Runtime, wanted: Filter, closed: Callable[[EventStream], None]) -> None:
        super().__init__()
        self._runtime = runtime
        self._wanted = wanted
        self._closed = closed
        self._reader: Reader | None = None

    async def open(self) -> None:
        """Take the log's ends as the start. Raises: Problem 404 (unknown topic), 503 (log away)."""
        log = self._runtime.log
        if log is None:
            raise unavailable("the log is not connected yet; nothing can be followed.")
        declared = self._runtime.registry.topics
        unknown = self._wanted.topics - set(declared)
        if unknown:
            raise not_found(f"there is no topic {min(unknown)!r}; declared are: {', '.join(declared)}.")
        try:
            infos = await in_time(log.topics(sorted(self._wanted.topics) or declared))
            partitions = [TopicPartition(i.topic, number) for i in infos.values() for number in range(i.partitions)]
            bounds = await in_time(log.bounds(partitions))
            self._reader = await in_time(log.reader({partition: bounds[partition].end for partition in partitions}))
        except (TransportError, ConfigurationError, TimeoutError) as error:
            raise unavailable("the log is away, so nothing can be followed; ask again.") from error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the end."""
        leaving = asyncio.create_task(_left(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            await _send(send, b": following\n\n")
            await self._follow(send, leaving)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            leaving.cancel()
            self._closed(self)
            if self._reader is not None:
                await self._reader.close()

    async def _follow(self, send: Send, leaving: asyncio.Task[None]) -> None:
        assert self._reader is not None
        beat_at = time.monotonic() + HEARTBEAT_SECONDS
        while not leaving.done() and not self._runtime.is_draining:
            try:
                fetched = await self._reader.fetch(FETCH_RECORDS, FETCH_BYTES, FETCH_SECONDS)
            except (TransportError, ConfigurationError) as error:
                logger.warning("stream ended", error=str(error))
                await _send(send, b"event: end\ndata: the log is away\n\n")
                return
            lines = b"".join(message for records in fetched.values() for message in self._messages(records))
            if not lines and time.monotonic() >= beat_at:
                lines = b": still here\n\n"
            if lines:
                await _send(send, lines)
                beat_at = time.monotonic() + HEARTBEAT_SECONDS

    def _messages(self, records: list[Record]) -> Iterator[bytes]:
        wanted = self._wanted
        for record in records:
            if wanted.keys and record.key not in wanted.keys:
                continue
            position = f"id: {record.topic}/{record.partition}/{record.offset}\n".encode()
            try:
                envelope, data = decode_record(record, extensions=True)
            except DecodeError as error:
                if not wanted.types:
                    yield (
                        position + b"event: undecodable\ndata: " + msgspec.json.encode({"error": str(error)}) + b"\n\n"
                    )
                continue
            if not wanted.types or envelope.type in wanted.types:
                yield position + b"data: " + encode_structured(envelope, data) + b"\n\n"


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})
