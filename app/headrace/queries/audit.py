"""`/subscriptions/{name}/audit`: does what the tables hold keep the platform's promises?"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from headrace.audit.findings import shown
from headrace.audit.record import audit_and_record
from headrace.http.database import connection, json_response, subscription_of
from headrace.http.guard import require
from headrace.http.openapi import Responses, problem
from headrace.http.runtime_of import runtime_of
from headrace.telemetry.logging import get_logger

logger = get_logger("headrace.audit")


def add_routes(router: APIRouter) -> None:
    """Add the route. It comes before `/subscriptions/{name}/{action}`, whose path it has as well."""
    answers: Responses = {
        404: problem("No such subscription."),
        422: problem("Wrong parameters."),
        503: problem("The database is away, or too slow for an audit.", retry_after=True),
    }

    @router.post("/subscriptions/{name}/audit", summary="Audit a subscription", responses=answers)
    async def audit_subscription(
        request: Request, name: str, who: Annotated[str, Depends(require("operate"))]
    ) -> Response:
        """Compare claims, ledger, lanes, dead letters and states; reads only, while the subscription runs.

        Each finding is a broken promise, with its place and what to do. The result is what the metric
        `headrace_audit_mismatches` shows from then on.
        """
        runtime = runtime_of(request)
        subscription = subscription_of(runtime, name)
        async with connection(request) as postgres:
            report = await audit_and_record(postgres, subscription.group, runtime.settings.engine.dedupe_window_ids)
        logger.info("subscription audited", subscription=name, findings=len(report.findings), by=who)
        return json_response(shown(report, name))
