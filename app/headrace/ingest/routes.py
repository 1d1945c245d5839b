"""The routes that take events in: `POST /events` and `POST /events/{type}`."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from headrace.cloudevents import (
    MediaTypeError,
    ParsedEvent,
    check_json,
    check_json_media_type,
    check_lengths,
    parse_request,
    request_mode,
)
from headrace.envelope import Envelope
from headrace.errors import DecodeError
from headrace.ingest.dependencies import runtime_of
from headrace.ingest.documents import POST_DATA, POST_EVENTS, RESPONSES
from headrace.ingest.entries import JSON
from headrace.ingest.intake import Intake
from headrace.ingest.measure import count_refused
from headrace.problems import Problem, ProblemRoute
from headrace.security.guard import guard_of

if TYPE_CHECKING:
    from headrace.runtime import Runtime


def build_router() -> APIRouter:
    """Return the router of the routes that take events in; one per platform."""
    router = APIRouter(tags=["events"], route_class=ProblemRoute)
    intake = Intake()

    @router.post(
        "/events", status_code=202, summary="Publish CloudEvents", responses=RESPONSES, openapi_extra=POST_EVENTS
    )
    async def post_events(request: Request) -> Response:
        """Take one CloudEvent (structured or binary mode) or a batch of them; all are accepted, or none.

        The answer comes after the log has the events. After a 503 send the same ids again: duplicates are recognised.
        """
        runtime = _admitted(request)
        content_type = request.headers.get("content-type")
        try:
            mode = request_mode(content_type)
        except MediaTypeError as error:
            raise _media_type_refused(runtime, error) from error

        def parse(body: bytes) -> list[ParsedEvent | DecodeError]:
            return parse_request(content_type, request.headers.raw, body)

        return await intake.take(runtime, request, "/events", mode, parse)

    @router.post(
        "/events/{type:path}",
        status_code=202,
        summary="Publish plain JSON",
        responses=RESPONSES,
        openapi_extra=POST_DATA,
    )
    async def post_data(request: Request, type: str) -> Response:
        """Take the data of one event of the type; the platform makes the CloudEvent around it.

        `Idempotency-Key` becomes the event's id, so that the request may be sent again without a second effect.
        """
        runtime = _admitted(request)
        try:
            check_json_media_type(request.headers.get("content-type"))
        except MediaTypeError as error:
            raise _media_type_refused(runtime, error) from error

        def parse(body: bytes) -> list[ParsedEvent | DecodeError]:
            check_json(body)
            source, event_id = f"/{runtime.registry.service}", _event_id(request)
            envelope = Envelope(id=event_id, source=source, type=type, datacontenttype=JSON)
            check_lengths(envelope)
            return [ParsedEvent(envelope, body)]

        return await intake.take(runtime, request, "/events/{type}", "plain", parse)

    return router


def _admitted(request: Request) -> Runtime:
    """Return the platform for who may publish. Called by hand: as a dependency it costs a tenth of a small request."""
    runtime = runtime_of(request)
    try:
        guard_of(request.app).admit(request, "publish")
    except Problem as problem:
        count_refused(runtime.metrics, problem, 1)
        raise
    return runtime


def _media_type_refused(runtime: Runtime, error: MediaTypeError) -> Problem:
    problem = Problem(415, "media-type", "Unsupported media type", str(error))
    count_refused(runtime.metrics, problem, 1)
    return problem


def _event_id(request: Request) -> str:
    """Return the Idempotency-Key, quoted as a structured field or plain, else a new id. Raises: DecodeError."""
    given = request.headers.get("idempotency-key")
    if given is None:
        return str(uuid.uuid4())
    try:
        event_id = given.encode("latin-1").decode().strip()
    except UnicodeDecodeError:
        raise DecodeError("the header Idempotency-Key is not UTF-8.") from None
    if len(event_id) >= 2 and event_id[0] == event_id[-1] == '"':
        event_id = event_id[1:-1]
    if not event_id:
        raise DecodeError("the header Idempotency-Key is empty; leave it out, or name the event.")
    return event_id
