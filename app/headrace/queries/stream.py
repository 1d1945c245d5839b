"""`GET /events/stream`: what comes into the log from now on, or since a reader was last here, as server-sent events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

import msgspec
from fastapi import APIRouter, Depends, Header, Query
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from headrace.cloudevents import decode_record, encode_structured
from headrace.errors import ConfigurationError, DecodeError, TransportError
from headrace.http.guard import require
from headrace.http.openapi import problem
from headrace.http.problems import Problem, not_found, unavailable
from headrace.http.runtime_of import runtime_of
from headrace.log.ports import Reader, Record, TopicPartition
from headrace.queries.positions import Gap, Positions, parse_id, start_at
from headrace.queries.progress import answer_of
from headrace.telemetry.logging import get_logger

if TYPE_CHECKING:
    from headrace.runtime import Runtime

logger = get_logger("headrace.stream")

FETCH_RECORDS = 500
FETCH_BYTES = 4 * 2**20
FETCH_SECONDS = 0.5
"""A fetch is never cancelled, so a stream notices at most this much later that its reader left."""
HEARTBEAT_SECONDS = 15.0
"""Below the idle timeouts of common proxies (30 to 60 s)."""

ResultT = TypeVar("ResultT")
_HEADERS = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]


class Filter(msgspec.Struct, frozen=True):
    """Says which records a stream shows; empty means all."""

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
        last_event_id: Annotated[str | None, Header(description="The id of the last event that was received.")] = None,
    ) -> Response:
        """Send each event that comes into the log from now on, or after `Last-Event-ID`, which EventSource sends.

        An id begins with topic/partition/offset. What the log no longer has is told as `event: gap`.
        """
        runtime = runtime_of(request)
        limit = runtime.settings.ingest.max_streams
        if len(open_streams) >= limit:
            detail = f"{limit} streams are open (HEADRACE_INGEST_MAX_STREAMS); close one, or wait."
            raise Problem(429, "rate-limited", "Too many streams", detail, headers={"Retry-After": "5"})
        wanted = Filter(frozenset(topic or ()), frozenset(type or ()), frozenset(name.encode() for name in key or ()))
        stream = EventStream(runtime, wanted, _parse_last(last_event_id), open_streams.discard)
        open_streams.add(stream)
        await stream.open()
        return stream


class EventStream(Response):
    """Answers with one open stream, which ends when its reader leaves, the process drains, or the log is away."""

    def __init__(
        self,
        runtime: Runtime,
        wanted: Filter,
        seen: Mapping[TopicPartition, int],
        closed: Callable[[EventStream], None],
    ) -> None:
        super().__init__()
        self._runtime = runtime
        self._wanted = wanted
        self._seen = seen
        self._closed = closed
        self._call: asyncio.Future[Any] | None = None
        self._late: asyncio.Task[None] | None = None
        self._is_reader_asked = False
        self._reader: Reader | None = None
        self._positions = Positions({})
        self._gaps: list[Gap] = []

    async def open(self) -> None:
        """Take the log's ends as the start, or what the reader has seen. Raises: Problem 404 (topic), 503 (log away).

        If it raises, the stream is closed, as soon as the log has answered: what comes late is not left open.
        """
        try:
            await self._open()
        except BaseException:
            if self._call is None or self._call.done():
                self._closed(self)
            else:
                self._late = asyncio.create_task(self._close_late(self._call))
            raise

    async def _open(self) -> None:
        log = self._runtime.log
        if log is None:
            raise unavailable("the log is not connected yet; nothing can be followed.")
        declared = self._runtime.registry.topics
        unknown = self._wanted.topics - set(declared)
        if unknown:
            raise not_found(f"there is no topic {min(unknown)!r}; declared are: {', '.join(declared)}.")
        try:
            infos = await self._ask(log.topics(sorted(self._wanted.topics) or declared))
            partitions = [TopicPartition(i.topic, number) for i in infos.values() for number in range(i.partitions)]
            start = start_at(await self._ask(log.bounds(partitions)), self._seen)
            self._is_reader_asked = True
            self._reader = await self._ask(log.reader(start.positions))
        except (TransportError, ConfigurationError, TimeoutError) as error:
            raise unavailable("the log is away, so nothing can be followed; ask again.") from error
        self._positions, self._gaps = Positions(start.positions), start.gaps

    async def _ask(self, question: Coroutine[Any, Any, ResultT]) -> ResultT:
        call = self._call = asyncio.ensure_future(question)
        return await answer_of(call)

    async def _close_late(self, call: asyncio.Future[Any]) -> None:
        """Close what the log opens after nobody waits for it any more; until then the stream keeps its place."""
        try:
            answer = await call
            if self._is_reader_asked:
                await cast("Reader", answer).close()
        except Exception as error:
            logger.warning("stream not opened", error=str(error))
        finally:
            self._closed(self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the end."""
        leaving = asyncio.create_task(_left(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            await _send(send, b": following\n\n" + b"".join(map(_gap_message, self._gaps)))
            await self._follow(send, leaving)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            leaving.cancel()
            try:
                if self._reader is not None:
                    await self._reader.close()
            finally:
                self._closed(self)

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
            for partition in fetched:
                self._positions.move(partition, self._reader.position(partition))
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
            position = f"id: {self._positions.id_of(record)}\n".encode()
            try:
                envelope, data = decode_record(record, extensions=True)
            except DecodeError as error:
                if not wanted.types:
                    yield (
                        position + b"event: undecodable\ndata: " + msgspec.json.encode({"error": str(error)}) + b"\n\n"
                    )
                continue
            if not wanted.types or envelope.type in wanted.types:
                event = msgspec.json.format(encode_structured(envelope, data), indent=-1)  # on one line
                yield position + b"data: " + event + b"\n\n"


def _parse_last(last_event_id: str | None) -> dict[TopicPartition, int]:
    if not last_event_id:
        return {}
    try:
        return parse_id(last_event_id)
    except ValueError:
        detail = "Last-Event-ID is not an id of this stream; leave it out to follow from now on."
        raise Problem(422, "parameters", "The request's parameters are wrong", detail) from None


def _gap_message(gap: Gap) -> bytes:
    told = {"topic": gap.partition.topic, "partition": gap.partition.partition, "first": gap.first, "end": gap.end}
    return b"event: gap\ndata: " + msgspec.json.encode(told) + b"\n\n"


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})
