"""The management paths for the application's own port, as a laptop uses them."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Request, Response
from fastapi.params import Depends
from fastapi.routing import APIRoute

from headrace.telemetry.health import Health, Report
from headrace.telemetry.metrics import Metrics

READY = "headrace_health_ready"
"""The name of the readiness route, by which its address is found under any prefix."""
METRICS = "headrace_metrics"
"""The name of the metrics route."""


def telemetry_routes(metrics_guards: Sequence[Depends] = (), *, route_class: type[APIRoute] = APIRoute) -> APIRouter:
    """Return /metrics, /health/live and /health/ready; the guards protect /metrics alone, since probes bring no key.

    They read `request.app.state.headrace.runtime`: its `health` and its `metrics`.
    """
    router = APIRouter(include_in_schema=False, route_class=route_class)

    @router.get("/health/live")
    async def live(request: Request) -> Response:
        return _answer(_health(request).live_report(is_startup="startup" in request.query_params))

    @router.get("/health/ready", name=READY)
    async def ready(request: Request) -> Response:
        return _answer(_health(request).ready_report())

    @router.get("/metrics", name=METRICS, dependencies=list(metrics_guards))
    def metrics(request: Request) -> Response:
        """Rendered off the event loop: thousands of series take milliseconds."""
        of_process: Metrics = request.app.state.headrace.runtime.metrics
        body, content_type = of_process.render(request.headers.get("accept"))
        return Response(body, headers={"content-type": content_type, "cache-control": "no-store"})

    return router


def _health(request: Request) -> Health:
    health: Health = request.app.state.headrace.runtime.health
    return health


def _answer(report: Report) -> Response:
    return Response(report.body, report.status, {"cache-control": "no-store"}, "application/json")
