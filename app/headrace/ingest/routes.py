"""The routes that take events in: `POST /events` and `POST /events/{type}`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from headrace.cloudevents import MediaTypeError, check_json_media_type, request_mode
from headrace.http.caller import Caller
from headrace.http.direct import DirectRoute
from headrace.http.guard import guard_of
from headrace.http.openapi import POST_DATA, POST_DATA_ID, POST_EVENTS, POST_EVENTS_ID, RESPONSES
from headrace.http.pressure import SCOPE_KEY, Arrival
from headrace.http.problems import Problem
from headrace.http.runtime_of import runtime_of
from headrace.ingest.accept import accept
from headrace.ingest.limiter import Limiter
from headrace.ingest.measuring import count_refused
from headrace.ingest.parsing import PlainEvent
from headrace.ingest.rates import Rates

if TYPE_CHECKING:
    from headrace.runtime import Runtime


def build_router() -> APIRouter:
    """Return the router of the routes that take events in; one per platform."""
    router = APIRouter(tags=["events"], route_class=DirectRoute)
    limiter, rates = Limiter(), Rates()

    @router.post(
        "/events",
        name=POST_EVENTS_ID,
        operation_id=POST_EVENTS_ID,
        status_code=202,
        summary="Publish CloudEvents",
        responses=RESPONSES,
        openapi_extra=POST_EVENTS,
    )
    async def post_events(request: Request) -> Response:
        """Take one CloudEvent (structured or binary mode) or a batch of them; all are accepted, or none.

        The answer comes after the log has the events. After a 503 send the same ids again: duplicates are recognised.
        """
        runtime, caller = await _runtime_for_publisher(request)
        try:
            mode = request_mode(request.headers.get("content-type"))
        except MediaTypeError as error:
            raise _media_type_refused(runtime, error) from error
        return await accept(runtime, limiter, rates, request, "/events", mode, caller)

    @router.post(
        "/events/{type:path}",
        name=POST_DATA_ID,
        operation_id=POST_DATA_ID,
        status_code=202,
        summary="Publish plain JSON",
        responses=RESPONSES,
        openapi_extra=POST_DATA,
    )
    async def post_data(request: Request, type: str) -> Response:
        """Take the data of one event of the type; the platform makes the CloudEvent around it.

        `Idempotency-Key` becomes the event's id, so that the request may be sent again without a second effect.
        """
        runtime, caller = await _runtime_for_publisher(request)
        try:
            check_json_media_type(request.headers.get("content-type"))
        except MediaTypeError as error:
            raise _media_type_refused(runtime, error) from error
        plain = PlainEvent(runtime.registry.service, type)
        return await accept(runtime, limiter, rates, request, "/events/{type}", "plain", caller, plain)

    return router


async def _runtime_for_publisher(request: Request) -> tuple[Runtime, Caller]:
    """Return the platform, and the caller, who may publish. Raises: Problem 401, 403, 503.

    Called by hand: as a FastAPI dependency it costs a tenth of a small request.
    """
    arrival: Arrival | None = request.scope.get(SCOPE_KEY)  # of `headrace run`, not of another server
    runtime = runtime_of(request)
    if arrival is not None and (refused := arrival.pressure.take_refused()):
        count_refused(runtime.metrics, 429, refused)
    try:
        return runtime, await guard_of(request.app).admit(request, "publish")
    except Problem as problem:
        count_refused(runtime.metrics, problem.status_code, 1)
        raise


def _media_type_refused(runtime: Runtime, error: MediaTypeError) -> Problem:
    problem = Problem(415, "media-type", "Unsupported media type", str(error))
    count_refused(runtime.metrics, problem.status_code, 1)
    return problem
